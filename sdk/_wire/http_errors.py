"""What a peer sends that is no gRPC call in HTTP/1.1, and how it is answered: never on a good call's way."""

from __future__ import annotations

import logging
from typing import Any

import httptools

logger = logging.getLogger("sdk.wire")

# Bytes of a head, or of trailers and of what else comes between the bytes of a body: the most that the ingress lets
# through (twice 96 KiB), and room for what Envoy adds.
MAX_HEADER_BYTES = 208 << 10


class Refusal(Exception):
    """What a peer sent is not taken; the text says why.

    Attributes:
        status: The HTTP status that answers it when no call has begun.

    Example:
        >>> Refusal("400 Bad Request", "no").response().splitlines()[0]
        b'HTTP/1.1 400 Bad Request'
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def response(self) -> bytes:
        """Return the HTTP response."""
        reason = str(self)
        return (
            f"HTTP/1.1 {self.status}\r\ncontent-type: text/plain\r\ncontent-length: {len(reason)}\r\n"
            f"connection: close\r\n\r\n{reason}"
        ).encode("ascii")


PIPELINED = "400 Bad Request", "a request before the answer to the last one"
NOT_POST = "405 Method Not Allowed", "gRPC calls are POST requests"
NOT_GRPC = "415 Unsupported Media Type", "the content-type of a gRPC call is application/grpc or application/grpc+proto"
TOO_LONG = "431 Request Header Fields Too Large", f"the headers are longer than {MAX_HEADER_BYTES} bytes"
TOO_SLOW = "408 Request Timeout", "the headers did not arrive in time"


class Deaf:
    """Takes the place of a parser, and of a list of headers, when nothing more is wanted."""

    def feed_data(self, data: bytes) -> None:
        """Drop bytes."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Drop a header."""


DEAF: Any = Deaf()


def check_length(path: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Check a head that came together with more: only then its length is not that of what was read.

    Raises:
        Refusal: It is too long.
    """
    if len(path) + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES:
        raise Refusal(*TOO_LONG)


def too_much_metadata(size: int, limit: int) -> str:
    """Return the refusal of a call's metadata, in bytes."""
    return f"the request has {size} bytes of metadata, more than the limit of {limit} (max_metadata_bytes)"


def refusal_of(error: Exception) -> Refusal:
    """Return what is wrong, for the exception that a parser stopped with."""
    if isinstance(error, httptools.HttpParserUpgrade):
        return Refusal("400 Bad Request", "this server upgrades to no other protocol")
    if not isinstance(error, httptools.HttpParserCallbackError):
        return Refusal("400 Bad Request", str(error))
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if cause is not None and not isinstance(cause, Exception):
        raise cause  # SystemExit and its like end the replica
    logger.error("a connection failed", exc_info=cause or error)
    return Refusal("500 Internal Server Error", "the server failed")

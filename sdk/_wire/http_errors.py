"""HTTP responses to requests that are not gRPC calls in HTTP/1.1. Never on the path of a good call."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import httptools

logger = logging.getLogger("sdk.wire")

# Bytes of a head, or of trailers and everything else between the bytes of a body: the most that Envoy lets through (256
# KiB, sdk/_xds/listener.py), and room for the headers that it adds.
MAX_HEADER_BYTES = 272 << 10


class HttpError(Exception):
    """A request that the server rejects.

    Args:
        status: HTTP status of the response if no call has begun.
        reason: Body of the response.
        headers: Headers of the request, if they are complete: the response has its request id.

    Example:
        >>> HttpError("400 Bad Request", "no").response().splitlines()[0]
        b'HTTP/1.1 400 Bad Request'
    """

    def __init__(self, status: str, reason: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        fields = dict(headers)
        self._request_id = fields.get(b"request_id") or fields.get(b"x-request-id")

    def response(self, *, has_body: bool = True) -> bytes:
        """Return the HTTP response.

        Args:
            has_body: False for the response to a HEAD request.
        """
        reason = str(self)
        lines = [f"HTTP/1.1 {self.status}".encode(), b"content-type: text/plain", b"connection: close"]
        lines.append(b"content-length: %d" % len(reason))
        if self.status == NOT_POST[0]:
            lines.append(b"allow: POST")  # https://www.rfc-editor.org/rfc/rfc9110#section-15.5.6
        if self._request_id is not None:
            lines.append(b"request_id: " + self._request_id)
        return b"\r\n".join([*lines, b"", reason.encode("ascii") if has_body else b""])


PIPELINED = "400 Bad Request", "a request before the answer to the last one"
NOT_POST = "405 Method Not Allowed", "gRPC calls are POST requests"
NOT_GRPC = "415 Unsupported Media Type", "the content-type of a gRPC call is application/grpc or application/grpc+proto"
NOT_OURS = "403 Forbidden", "a connection of another node needs the secret that is derived from the token of Ray"
TOO_LONG = "431 Request Header Fields Too Large", f"the headers are longer than {MAX_HEADER_BYTES} bytes"
TOO_SLOW = "408 Request Timeout", "the headers did not arrive in time"


class _Discard:
    """Replaces a parser, or a list of headers, and drops all that it is given."""

    def feed_data(self, data: bytes) -> None:
        """Drop bytes."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Drop a header."""


DISCARD: Any = _Discard()


def check_length(path: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Check the length of a head that was read together with more, so that only the sum of both is known.

    Raises:
        HttpError: It is too long.
    """
    if len(path) + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES:
        raise HttpError(*TOO_LONG)


def too_much_metadata(size: int, limit: int) -> str:
    """Return the status details for a call with too much metadata.

    Args:
        size: Bytes of the metadata.
        limit: Most bytes that are accepted.
    """
    return f"the request has {size} bytes of metadata, more than the limit of {limit} (max_metadata_bytes)"


def to_http_error(error: Exception) -> HttpError:
    """Return the HTTP error for the exception that a parser stopped with."""
    if isinstance(error, httptools.HttpParserUpgrade):
        return HttpError("400 Bad Request", "this server upgrades to no other protocol")
    if not isinstance(error, httptools.HttpParserCallbackError):
        return HttpError("400 Bad Request", str(error))
    cause = error.__context__
    if isinstance(cause, HttpError):
        return cause
    if cause is not None and not isinstance(cause, Exception):
        raise cause  # SystemExit and the like end the replica
    logger.error("a connection failed", exc_info=cause or error)
    return HttpError("500 Internal Server Error", "the server failed")

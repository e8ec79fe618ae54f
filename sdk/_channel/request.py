"""The head of a request to another deployment: metadata, deadline and identity of the call that it is made in.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from sdk._replica_protocol import NODE_SECRET_HEADER
from sdk._wire import metadata as md
from sdk._wire.frames import ACCEPT_ENCODING

if TYPE_CHECKING:
    from sdk._wire.call import Call

# Headers of one hop, and those that belong to the outer call alone.
_OF_ONE_HOP = frozenset(
    {
        b"host", b"te", b"transfer-encoding", b"content-length", b"connection", b"content-type", b"grpc-timeout",
        b"grpc-encoding", b"grpc-accept-encoding", b"x-request-id", b"request_id", b"x-envoy-attempt-count",
        b"x-envoy-expected-rq-timeout-ms", b"x-envoy-external-address", b"x-envoy-internal",
        NODE_SECRET_HEADER.encode(),
    }
)  # fmt: skip


@lru_cache(maxsize=4096)
def first_lines(path: str) -> bytes:
    """Return the first lines of each request for a method."""
    return b"POST %s HTTP/1.1\r\nhost: replica\r\ncontent-type: application/grpc\r\ngrpc-accept-encoding: %s\r\n" % (
        path.encode(),
        ACCEPT_ENCODING,
    )


def inherited_lines(outer: Call, without: frozenset[bytes] = frozenset()) -> bytes:
    """Return the header lines that a call inherits from the call of the handler that makes it.

    The client's metadata, the request id, and what Envoy found out about the client: address and certificate.

    Args:
        outer: The handler's call.
        without: Names to leave out.
    """
    request_id = b"request_id: %s\r\n" % outer.request_id.encode("latin-1")
    return request_id + b"".join(
        b"%s: %s\r\n" % header for header in outer.headers if header[0] not in _OF_ONE_HOP and header[0] not in without
    )


def lines_of(metadata: Iterable[tuple[str, str | bytes]], without: frozenset[bytes]) -> bytes:
    """Return the header lines for the metadata of a request that Ray Serve's own proxy has received.

    Only a proxy of this package may say who the client is: what claims that is left out.

    Args:
        metadata: The pairs; the last request id is the request's.
        without: Names to leave out.
    """
    pairs = [
        (key, value)
        for key, value in metadata
        if not md.is_reserved(key) and key.encode() not in without and (isinstance(value, bytes) or md.is_plain(value))
    ]
    request_ids = [pair for pair in pairs if pair[0] == "request_id"]
    return md.encode((*(pair for pair in pairs if pair[0] != "request_id"), *request_ids[-1:]))


def own_lines(metadata: Iterable[tuple[str, str | bytes]], model_id: str) -> bytes:
    """Return the header lines for the arguments of one call.

    Args:
        metadata: Its pairs.
        model_id: Its model, or an empty string.

    Raises:
        TypeError: The metadata is not a sequence of pairs.
        ValueError: The metadata or the model can't be sent.
    """
    pairs = tuple(metadata)
    lines = md.encode(md.check(pairs))
    for value in [value for key, value in pairs if key == "request_id"][-1:]:
        lines += _id_line("request_id", value)
    return lines + _id_line("multiplexed_model_id", model_id) if model_id else lines


def _id_line(key: str, value: object) -> bytes:
    """Return a header line; its value may come from a request, and must not add other lines."""
    if not md.is_plain(value):
        raise ValueError(f"{key} must be printable ASCII text, not {value!r}")
    return f"{key}: {value}\r\n".encode()


def timeout_line(seconds: float) -> bytes:
    r"""Return the line of a deadline: at most eight digits.

    Example:
        >>> timeout_line(2.5), timeout_line(200)
        (b'grpc-timeout: 2500000u\r\n', b'grpc-timeout: 200000m\r\n')
    """
    if seconds < 99:
        return b"grpc-timeout: %du\r\n" % max(1, seconds * 1e6)
    if seconds < 99_999:
        return b"grpc-timeout: %dm\r\n" % (seconds * 1e3)
    return b"grpc-timeout: %dS\r\n" % min(seconds, 99_999_999)

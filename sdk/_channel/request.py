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
_MODEL_ID = b"multiplexed_model_id"


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


def own_lines(metadata: Iterable[tuple[str, str | bytes]], model_id: str) -> bytes:
    """Return the header lines for the arguments of one call.

    Args:
        metadata: Its pairs.
        model_id: Its model, or an empty string.

    Raises:
        TypeError: The metadata is not a sequence of pairs.
        ValueError: The metadata can't be sent.
    """
    pairs = tuple(metadata)
    request_ids = [value for pair in pairs if len(pair) == 2 for key, value in [pair] if key == "request_id"]
    lines = md.encode(md.check(pairs))
    if request_ids:
        lines += b"request_id: %s\r\n" % str(request_ids[-1]).encode("latin-1")
    return lines + (b"%s: %s\r\n" % (_MODEL_ID, model_id.encode()) if model_id else b"")


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

"""The status of a response as the error that the caller gets.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

import grpc
from google.protobuf.message import DecodeError

from sdk._status import STATUS_DETAILS
from sdk._wire import metadata as md
from sdk.errors import RpcError

_CODES = {str(code.value[0]).encode(): code for code in grpc.StatusCode}
#: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
CODE_OF_HTTP = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}
_NOT_METADATA = {"request_id", "content-type", "content-length", "connection", "transfer-encoding"}


def error_of(http_status: int, fields: list[tuple[bytes, bytes]]) -> RpcError | None:
    """Return the error of a response; None if the call has succeeded.

    Args:
        http_status: Its HTTP status.
        fields: Its trailers, or its headers if it has nothing else.
    """
    found = dict(fields)
    number = found.get(b"grpc-status")
    if number is None:
        code = CODE_OF_HTTP.get(http_status, grpc.StatusCode.UNKNOWN)
        return RpcError(code, f"the replica answered with the HTTP status {http_status} and no gRPC status")
    if number == b"0":
        return None
    code = _CODES.get(number, grpc.StatusCode.UNKNOWN)
    details = unquote_to_bytes(found.get(b"grpc-message", b"")).decode("utf-8", "replace")
    pairs = [(str(key), value) for key, value in md.from_headers(fields)]
    return _with_details(code, details, [p for p in pairs if _is_metadata(p[0])])


def _is_metadata(key: str) -> bool:
    return key not in _NOT_METADATA and (not key.startswith("grpc-") or key == STATUS_DETAILS)


def _with_details(code: grpc.StatusCode, details: str, pairs: list[Any]) -> RpcError:
    """Return an error whose ``google.rpc.Status``, if its metadata has one, became ``errors``.

    See the richer error model, https://grpc.io/docs/guides/error/.
    """
    data = next((value for key, value in pairs if key == STATUS_DETAILS), None)
    others = [pair for pair in pairs if pair[0] != STATUS_DETAILS]
    if not isinstance(data, bytes):
        return RpcError(code, details, others)
    from sdk._gen.status_pb2 import Status  # not before a call needs it

    try:
        return RpcError(code, details, others, errors=Status.FromString(data).details)
    except DecodeError:
        return RpcError(code, details, pairs)

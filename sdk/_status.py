"""The errors in an error: what a client reads of the ``google.rpc.Status`` in the trailers of a failed call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message

# Trailing metadata with a serialized google.rpc.Status (gRPC richer error model, https://grpc.io/docs/guides/error/).
STATUS_DETAILS = "grpc-status-details-bin"


def error_details(error: grpc.RpcError) -> list[Message]:
    """Return the messages that say more about a failed call, each of its own class.

    A service sends them with ``sdk.RpcError(code, text, errors=[...])``; other servers in their own ways.

    Args:
        error: What a call raised, of ``grpc`` or of ``grpc.aio``.

    Returns:
        Those of ``google.rpc.error_details_pb2``, and any whose generated module this program has imported. One of an
        unknown type stays a ``google.protobuf.Any``. Empty when the server sent none.

    Raises:
        TypeError: It is not the error of a call.

    Example:
        ::

            try:
                client.SayHello(HelloRequest())
            except grpc.RpcError as error:
                for detail in sdk.error_details(error):
                    if isinstance(detail, BadRequest):
                        print(detail.field_violations[0].field)
    """
    from google.protobuf.message import DecodeError
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no types

    data = next((value for key, value in _trailing_metadata(error) if key == STATUS_DETAILS), None)
    if not isinstance(data, bytes):
        return []
    try:
        status = Status.FromString(data)
    except DecodeError:  # not ours, and no reason to hide the error itself
        return []
    return [_unpacked(detail) for detail in status.details]


def describe(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """Return the code, the details and the trailing metadata of a failed call.

    Raises:
        TypeError: It is not the error of a call.
    """
    metadata = tuple(_trailing_metadata(error))
    failed: Any = error
    return failed.code(), failed.details() or "", metadata


def _trailing_metadata(error: Any) -> Iterable[tuple[str, str | bytes]]:
    read = getattr(error, "trailing_metadata", None)
    if not callable(read):
        raise TypeError(f"{error!r} is not the error of a call: give the grpc.RpcError that the call raised")
    return ((key, value) for key, value in read() or ())


def _unpacked(detail: AnyMessage) -> Message:
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(detail.TypeName())
        message: Message = message_factory.GetMessageClass(descriptor)()
        detail.Unpack(message)
    except (KeyError, DecodeError):
        return detail
    return message

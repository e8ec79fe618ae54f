"""The error details of a failed call: the ``google.rpc.Status`` in its trailing metadata.

See https://grpc.io/docs/guides/error/#richer-error-model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message

# Key of the trailing metadata with a serialized google.rpc.Status,
# https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto.
STATUS_DETAILS = "grpc-status-details-bin"
# Proxies add this header to the head of each HTTP response, https://www.rfc-editor.org/rfc/rfc9110#name-date. Where the
# head holds the status, a Trailers-Only response, gRPC takes it for trailing metadata.
HTTP_DATE = "date"


def error_details(error: grpc.RpcError) -> list[Message]:
    """Return the error details of a failed call, each as a message of its class.

    A service of this SDK sends them with ``sdk.RpcError(code, text, errors=[...])``; other gRPC servers send them with
    their own APIs.

    Args:
        error: The error that a call raised, of ``grpc`` or of ``grpc.aio``.

    Returns:
        Messages of ``google.rpc.error_details_pb2``, and of any generated module that this program has imported. A
        message of an unknown type remains a ``google.protobuf.Any``. Empty when the server sent no details.

    Raises:
        TypeError: ``error`` was not raised by a call.

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

    from sdk._gen.status_pb2 import Status

    data = next((value for key, value in _trailing_metadata(error) if key == STATUS_DETAILS), None)
    if not isinstance(data, bytes):
        return []
    try:
        status = Status.FromString(data)
    except DecodeError:  # another server's invalid details must not hide the error itself
        return []
    return [unpacked(detail) for detail in status.details]


def retry_later(code: int, message: str) -> bytes:
    """Return the serialized ``google.rpc.Status`` of a call above a limit, with ``google.rpc.RetryInfo``.

    Its delay is a second: a limit of calls a second has room again by then, and when another call ends nobody knows.
    https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto

    Args:
        code: The status code.
        message: The message.
    """
    from google.protobuf.duration_pb2 import Duration

    from sdk._gen.status_pb2 import Status

    delay = Duration(seconds=1).SerializeToString()
    status = Status(code=code, message=message)
    # Its only field, number 1; the module with its class is one of a package that clients need not have.
    status.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\n%c%b" % (len(delay), delay))
    return status.SerializeToString()


def read_status(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """Return the status code, the details and the trailing metadata of a failed call, without HTTP's ``date``.

    Args:
        error: The error that a call raised, of ``grpc`` or of ``grpc.aio``.

    Raises:
        TypeError: ``error`` was not raised by a call.
    """
    metadata = tuple(pair for pair in _trailing_metadata(error) if pair[0] != HTTP_DATE)
    failed: Any = error
    return failed.code(), failed.details() or "", metadata


def _trailing_metadata(error: Any) -> Iterable[tuple[str, str | bytes]]:
    read = getattr(error, "trailing_metadata", None)
    if not callable(read):
        raise TypeError(f"{error!r} is not the error of a call: give the grpc.RpcError that the call raised")
    return ((key, value) for key, value in read() or ())


def unpacked(detail: AnyMessage) -> Message:
    """Return the message in an Any, or the Any itself if this program does not know its type."""
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(detail.TypeName())
        message: Message = message_factory.GetMessageClass(descriptor)()
        detail.Unpack(message)
    except (KeyError, DecodeError):
        return detail
    return message

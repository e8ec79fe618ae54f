"""The header that says when to try again, https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import BytesValue

from sdk._gen.status_pb2 import Status
from sdk._status import STATUS_DETAILS

if TYPE_CHECKING:
    from sdk._wire.metadata import Metadata

_RETRY_INFO = "google.rpc.RetryInfo"


def retry_after(trailing: Metadata) -> bytes:
    r"""Return the header line for the delay in the ``google.rpc.RetryInfo`` of an error; nothing without one.

    https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto

    Args:
        trailing: The trailing metadata of the error, with its details.

    Example:
        >>> status = Status()
        >>> status.details.add(type_url=f"type.googleapis.com/{_RETRY_INFO}", value=b"\n\2\b\5")
        type_url: "type.googleapis.com/google.rpc.RetryInfo"
        value: "\n\002\010\005"
        <BLANKLINE>
        >>> retry_after(((STATUS_DETAILS, status.SerializeToString()),))
        b'retry-after: 5\r\n'
    """
    data = next((value for key, value in trailing if key == STATUS_DETAILS), None)
    if not isinstance(data, bytes):
        return b""
    for detail in Status.FromString(data).details:
        if detail.TypeName() == _RETRY_INFO:
            try:
                # Its only field, number 1, is the delay, as bytes on the wire.
                delay = Duration.FromString(BytesValue.FromString(detail.value).value)
            except DecodeError:
                return b""
            return b"retry-after: %d\r\n" % max(0, delay.seconds + (delay.nanos > 0))
    return b""

"""Messages and errors as JSON: ProtoJSON, and Connect's form of an error.

https://protobuf.dev/programming-guides/json/, https://connectrpc.com/docs/protocol#error-end-stream
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError, EncodeError

from sdk._gen.bad_request_pb2 import BadRequest
from sdk._gen.status_pb2 import Status
from sdk._status import STATUS_DETAILS, unpacked
from sdk._web.http_status import name_of
from sdk._web.json_reader import message_of
from sdk._web.json_writer import message_text, to_text
from sdk._wire.frames import FrameError
from sdk._wire.metadata import INTERNAL, INVALID_ARGUMENT

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message

    from sdk._wire.metadata import Metadata

#: What is raised for JSON that is not that of a message. KeyError: an Any without the value of its type; EncodeError: a
#: required field is missing.
NOT_THE_MESSAGE = (
    json_format.ParseError, ValueError, TypeError, AttributeError, KeyError, RecursionError, EncodeError,
)  # fmt: skip


def parse_message(data: bytes | bytearray, kind: type[Message]) -> bytes:
    """Return the message of a request's JSON, as protobuf bytes.

    Raises:
        FrameError: INVALID_ARGUMENT: it is not JSON of such a message. The text names the field.
    """
    name = kind.DESCRIPTOR.full_name
    if not data.strip():
        raise FrameError(INVALID_ARGUMENT, f"the request has no body: send the {name} as JSON, {{}} if no field is set")
    try:
        value = load(data)
        if not isinstance(value, dict) and kind.DESCRIPTOR.file.package != "google.protobuf":
            # protobuf takes `[]` for a message without fields
            raise ValueError("it is not an object, {...}")
        return kind.SerializeToString(message_of(value, kind))
    except NOT_THE_MESSAGE as error:
        raise FrameError(INVALID_ARGUMENT, f"the request is not JSON of a {name}: {explain(error)}") from None


def explain(error: Exception) -> str:
    """Return what is wrong with JSON that is not that of a message."""
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)


def print_message(data: bytes, kind: type[Message]) -> bytes:
    """Return a response message as JSON on one line.

    Raises:
        FrameError: INTERNAL: JSON can't express it, such as an Any of a type that the server does not know.
    """
    return print_as_json(kind.FromString(data))


def print_as_json(message: Message) -> bytes:
    """Return a message as JSON on one line.

    Raises:
        FrameError: INTERNAL: JSON can't express it.
    """
    try:
        return message_text(message).encode()
    except (TypeError, ValueError, json_format.Error) as error:
        name = type(message).DESCRIPTOR.full_name
        raise FrameError(INTERNAL, f"the response, a {name}, can't be written as JSON: {error}") from None


def error_object(code: int, details: str, trailing: Metadata) -> dict[str, Any]:
    """Return an error in Connect's form.

    Args:
        code: The gRPC status code.
        details: The status message.
        trailing: The trailing metadata; the details come from its ``google.rpc.Status``.
    """
    error: dict[str, Any] = {"code": name_of(code)}
    if details:
        error["message"] = details
    data = next((value for key, value in trailing if key == STATUS_DETAILS), None)
    if isinstance(data, bytes):
        packed = Status.FromString(data).details  # checked by error_trailers
        error["details"] = [_detail(each) for each in packed]
    return error


def dump(value: Any) -> bytes:
    """Return a JSON value as bytes, on one line."""
    return to_text(value).encode("utf-8", "replace")


def load(data: bytes | bytearray) -> Any:
    """Return a JSON value from bytes.

    Raises:
        ValueError: They are not JSON, or an object has a key twice.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(data.decode())


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


# Made once: each call of json.loads with other options than the default ones makes its own.
_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates)


def _detail(packed: AnyMessage) -> dict[str, Any]:
    """Return one detail: its bytes for clients, and its JSON for readers."""
    value = base64.b64encode(packed.value).rstrip(b"=").decode()
    detail: dict[str, Any] = {"type": packed.TypeName(), "value": value}
    try:
        message = unpacked(packed)
        if message is packed and packed.TypeName() == "google.rpc.BadRequest":
            message = BadRequest.FromString(packed.value)  # that of validation: nobody has loaded Google's file
        if message is not packed:
            detail["debug"] = json_format.MessageToDict(message)
    except (TypeError, ValueError, DecodeError, json_format.Error):
        return detail  # such as an Any of an unknown type within it: its bytes say the same
    return detail

"""Description of a service, method, message or enum as proto source, and a JSON template of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from google.protobuf.descriptor import Descriptor, EnumDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from sdk._protos.wire_format import is_repeated
from sdk.cli.rpc.proto_text import ProtoText

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

    from sdk._protos.descriptors import Descriptors

# Messages that are not objects in JSON: https://protobuf.dev/programming-guides/json/
_WELL_KNOWN: dict[str, Any] = {
    "google.protobuf.Any": {"@type": ""},
    "google.protobuf.Duration": "0s",
    "google.protobuf.Empty": {},
    "google.protobuf.FieldMask": "",
    "google.protobuf.ListValue": [],
    "google.protobuf.Struct": {},
    "google.protobuf.Timestamp": "1970-01-01T00:00:00Z",
    "google.protobuf.Value": None,
}


def kind_of(symbol: Any) -> Literal["service", "message", "enum", "method"]:
    """Return the kind of a descriptor."""
    if isinstance(symbol, ServiceDescriptor):
        return "service"
    if isinstance(symbol, Descriptor):
        return "message"
    return "enum" if isinstance(symbol, EnumDescriptor) else "method"


def describe(symbol: Any, descriptors: Descriptors) -> str:
    """Return the proto source of a service, a method with its messages, a message, or an enum.

    Args:
        symbol: Its descriptor.
        descriptors: The files that it and its types are in.
    """
    if kind_of(symbol) != "method":
        return _text(symbol, symbol.file.name, descriptors)
    file = symbol.containing_service.file.name
    messages = dict.fromkeys((symbol.input_type, symbol.output_type))
    texts = (f"// {message.full_name}\n{_text(message, message.file.name, descriptors)}" for message in messages)
    return "\n\n".join([_text(symbol, file, descriptors), *texts])


def _text(symbol: Any, file_name: str, descriptors: Descriptors) -> str:
    try:
        file = descriptors.file(file_name)
    except KeyError:  # a file of protobuf, which the server did not send
        file = FileDescriptorProto()
        descriptors.pool.FindFileByName(file_name).CopyToProto(file)
    return ProtoText(file, descriptors.pool).symbol(symbol.full_name)


def template_of(message: Descriptor) -> Any:
    """Return a message as JSON with every field, and one element of each repeated field.

    A recursive message is null, and so is every member of a ``oneof`` except the first.

    Args:
        message: The message.
    """
    return _template(message, ())


def _template(message: Descriptor, outer: tuple[str, ...]) -> Any:
    name = message.full_name
    if name in _WELL_KNOWN:
        return _WELL_KNOWN[name]
    if message.file.name == "google/protobuf/wrappers.proto":
        return _value(message.fields_by_name["value"], outer)
    if name in outer:
        return None
    made: dict[str, Any] = {}
    chosen: set[str] = set()
    for field in message.fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            if oneof.full_name in chosen:
                made[field.json_name] = None
                continue
            chosen.add(oneof.full_name)
        made[field.json_name] = _field(field, (*outer, name))
    return made


def _field(field: FieldDescriptor, outer: tuple[str, ...]) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        made = _value(value, outer)
        text = _value(key, outer)
        return {} if made is None else {text if isinstance(text, str) else str(text).lower(): made}
    made = _value(field, outer)
    if is_repeated(field):
        return [] if made is None else [made]
    return made


def _value(field: FieldDescriptor, outer: tuple[str, ...]) -> Any:
    if field.message_type is not None:
        return _template(field.message_type, outer)
    if field.enum_type is not None:
        return field.enum_type.values[0].name
    if field.type == field.TYPE_BYTES:
        return ""
    return field.default_value if not is_repeated(field) else _zero(field)


def _zero(field: FieldDescriptor) -> Any:
    if field.type == field.TYPE_STRING:
        return ""
    return False if field.type == field.TYPE_BOOL else 0

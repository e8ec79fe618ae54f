"""Conversion of messages from and to JSON by protobuf's mapping, with precise errors for values that do not fit.

The mapping: https://protobuf.dev/programming-guides/json/.
"""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from sdk._error_text import one_line
from sdk._protos.wire_format import is_repeated
from sdk.cli.rpc.json_places import offset_of
from sdk.cli.rpc.json_stream import JsonError, JsonValue
from sdk.errors import SdkError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

_ANY = "google.protobuf.Any"
_MANY = 12
_NAMES = {
    "TYPE_DOUBLE": "a number",
    "TYPE_FLOAT": "a number",
    "TYPE_BOOL": "true or false",
    "TYPE_STRING": "a string",
    "TYPE_BYTES": "a string in base64",
}


class UnprintableError(SdkError):
    """A server sent a message that can't be converted to JSON. The operator of the server must act."""


class JsonCodec:
    """Converts messages of the types in a pool from and to JSON.

    Args:
        pool: The types, including those that an ``Any`` may contain. Unknown types of an ``Any`` are added as
            placeholders.
        emit_defaults: Whether to write fields without presence that have their default value.
        proto_names: Whether to write fields by their names in the proto, not in lowerCamelCase.
        allow_unknown_fields: Whether to ignore unknown fields of the JSON.
    """

    def __init__(
        self,
        pool: DescriptorPool,
        *,
        emit_defaults: bool = False,
        proto_names: bool = False,
        allow_unknown_fields: bool = False,
    ) -> None:
        self._pool = pool
        self._emit_defaults = emit_defaults
        self._proto_names = proto_names
        self._allow_unknown_fields = allow_unknown_fields
        self._placeholders: set[str] = set()

    def read(self, json_value: JsonValue, kind: type[Message]) -> Message:
        """Return the message of a JSON value.

        Args:
            json_value: The value.
            kind: The message's class.

        Raises:
            JsonError: The value does not fit; the error has the position and the reason.
        """
        try:
            message = self._parse(json_value.value, kind)
        except json_format.ParseError as error:
            path, why = self._find_problem(json_value.value, kind) or ([], one_line(error))
            raise JsonError(f"{json_value.place(offset_of(json_value.text, path))}: {why}") from None
        check_required(message, json_value.place())
        return message

    def as_dict(self, message: Message) -> Any:
        """Return a message as a JSON value. An ``Any`` of an unknown type has its bytes in ``@value``, in base64.

        Raises:
            UnprintableError: JSON can't represent it, such as an infinite ``Value``.
        """
        try:
            if not self._placeholders:
                try:
                    return self._to_dict(message)
                except TypeError:  # raised by json_format for a type that the pool lacks
                    pass
            copy = type(message)()
            copy.CopyFrom(message)
            for each in self._unknown_within(copy):
                self._add_placeholder(each)
            return self._to_dict(copy)
        except (json_format.SerializeToJsonError, DecodeError, ValueError) as error:
            raise UnprintableError(
                f"The server sent a {message.DESCRIPTOR.full_name} that JSON can't represent: {one_line(error)}"
            ) from None

    def write(self, message: Message, *, indent: int | None = None) -> str:
        """Return a message as JSON text, on one line unless ``indent`` is given."""
        return dumps(self.as_dict(message), indent=indent)

    def _parse(self, value: Any, kind: type[Message]) -> Message:
        try:
            return json_format.ParseDict(
                value, kind(), ignore_unknown_fields=self._allow_unknown_fields, descriptor_pool=self._pool
            )
        except json_format.ParseError:
            raise
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            # json_format fails with these for a value of another kind where it expects a message, such as a number.
            raise json_format.ParseError(str(error)) from None

    def _to_dict(self, message: Message) -> Any:
        return json_format.MessageToDict(
            message,
            always_print_fields_with_no_presence=self._emit_defaults,
            preserving_proto_field_name=self._proto_names,
            descriptor_pool=self._pool,
        )

    def _is_known(self, full_name: str) -> bool:
        if full_name in self._placeholders:
            return False
        try:
            self._pool.FindMessageTypeByName(full_name)
        except KeyError:
            return False
        return True

    def _add_placeholder(self, packed: Any) -> None:
        """Convert an ``Any`` of an unknown type to a placeholder type of that name, which contains only the bytes."""
        full_name = packed.TypeName()
        if full_name not in self._placeholders:
            package, _, name = full_name.rpartition(".")
            file = FileDescriptorProto(name=f"unknown/{full_name}.proto", package=package, syntax="proto3")
            field = file.message_type.add(name=name).field.add(name="value", number=1, json_name="@value")
            field.type, field.label = field.TYPE_BYTES, field.LABEL_OPTIONAL
            try:
                self._pool.AddSerializedFile(file.SerializeToString())
            except TypeError:  # not a valid name, or the name of something inside a known message
                raise ValueError(f"type {packed.type_url!r} is unknown") from None
            self._placeholders.add(full_name)
        kind = GetMessageClass(self._pool.FindMessageTypeByName(full_name))
        packed.value = kind(value=packed.value).SerializeToString()

    def _unknown_within(self, message: Any) -> Iterator[Any]:
        """Yield each ``Any`` of an unknown type in a message, also nested ones. The caller may change them."""
        if message.DESCRIPTOR.full_name == _ANY:
            yield from self._unknown_in_any(message)
            return
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            if field.message_type.GetOptions().map_entry:
                if field.message_type.fields_by_name["value"].message_type is not None:
                    for item in value.values():
                        yield from self._unknown_within(item)
            else:
                items: Sequence[Any] = value if is_repeated(field) else (value,)
                for item in items:
                    yield from self._unknown_within(item)

    def _unknown_in_any(self, packed: Any) -> Iterator[Any]:
        if not packed.ListFields():
            return
        if not self._is_known(packed.TypeName()):
            yield packed
            return
        inner = GetMessageClass(self._pool.FindMessageTypeByName(packed.TypeName()))()
        inner.ParseFromString(packed.value)
        found = False
        for each in self._unknown_within(inner):
            found = True
            yield each
        if found:
            packed.value = inner.SerializeToString()

    # -- problems -----------------------------------------------------------------------------

    def _find_problem(self, value: Any, kind: type[Message]) -> tuple[list[str | int], str] | None:
        """Return the path of the first part that does not fit, and the reason; None if each part fits separately."""
        descriptor: Any = kind.DESCRIPTOR
        if descriptor.file.name.startswith("google/protobuf/"):
            return [], f"{shown(value)} is not a {descriptor.full_name}"
        if not isinstance(value, dict):
            return [], f"{descriptor.full_name} must be an object in {{}}, not {shown(value)}"
        fields = {field.json_name: field for field in descriptor.fields} | dict(descriptor.fields_by_name)
        for name, part in value.items():
            if self._fits({name: part}, kind):
                continue
            field = fields.get(name)
            if field is None:
                return [name], _unknown_field(descriptor, name)
            path, why = self._wrong_part(field, name, part, kind)
            return [name, *path], why
        return None

    def _wrong_part(
        self, field: FieldDescriptor, name: str, part: Any, kind: type[Message]
    ) -> tuple[list[str | int], str]:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if not isinstance(part, dict):
                return [], f"`{name}` is a map: it must be an object in {{}}, not {shown(part)}"
            wrong_key = next(key for key, item in part.items() if not self._fits({name: {key: item}}, kind))
            key_type, value_type = (field.message_type.fields_by_name[each] for each in ("key", "value"))
            if value_type.message_type is not None:
                found = self._find_problem(part[wrong_key], GetMessageClass(value_type.message_type))
                if found is not None:
                    return [wrong_key, *found[0]], found[1]
            types = f"from {_wanted(key_type)} to {_wanted(value_type)}"
            return [wrong_key], f"`{name}` maps {types}: {shown({wrong_key: part[wrong_key]})} does not fit"
        if is_repeated(field):
            if not isinstance(part, list):
                return [], f"`{name}` is repeated: it must be a list in [], not {shown(part)}"
            index = next(index for index, item in enumerate(part) if not self._fits({name: [item]}, kind))
            path, why = self._wrong_value(field, f"{name}[{index}]", part[index])
            return [index, *path], why
        return self._wrong_value(field, name, part)

    def _wrong_value(self, field: FieldDescriptor, name: str, part: Any) -> tuple[list[str | int], str]:
        if field.message_type is not None and part is not None:
            found = self._find_problem(part, GetMessageClass(field.message_type))
            if found is not None and found[0]:
                return found
            return [], f"`{name}` must be {_wanted(field)}, not {shown(part)}"
        hint = ""
        if field.enum_type is not None:
            names = list(field.enum_type.values_by_name)
            near = difflib.get_close_matches(str(part).upper(), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f": {_listed(names)}"
        return [], f"`{name}` must be {_wanted(field)}, not {shown(part)}{hint}"

    def _fits(self, value: Any, kind: type[Message]) -> bool:
        try:
            self._parse(value, kind)
        except json_format.ParseError:
            return False
        return True


def check_required(message: Message, place: str) -> None:
    """Check that a message has its required fields (proto2).

    Args:
        message: The message.
        place: Its position, for the error.

    Raises:
        JsonError: A required field is missing.
    """
    missing: list[str] = cast("Any", message).FindInitializationErrors()  # its stub lacks it
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        raise JsonError(f"{place}: {message.DESCRIPTOR.full_name} lacks {listed}, which is required")


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return JSON text, without escapes for characters outside of ASCII."""
    # A string may contain half a surrogate pair, which a terminal can't print.
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if text.isascii() or _is_encodable(text) else json.dumps(value, indent=indent)


def shown(value: Any) -> str:
    """Return a value for an error message: its JSON, truncated."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def as_text(value: str | bytes) -> str:
    """Return a value of metadata as text; bytes are encoded in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wanted(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return str(field.message_type.full_name)
    if field.enum_type is not None:
        return f"a value of enum {field.enum_type.full_name}"
    type_name = FieldDescriptorProto.Type.Name(cast("FieldDescriptorProto.Type.ValueType", field.type))
    return _NAMES.get(type_name, f"an integer ({type_name.removeprefix('TYPE_').lower()})")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MANY]) + ", …" * (len(names) > _MANY)


def _unknown_field(descriptor: Descriptor, name: str) -> str:
    names = [field.json_name for field in descriptor.fields]
    near = difflib.get_close_matches(name, [*names, *descriptor.fields_by_name], n=1)
    if near:
        hint = f"did you mean `{near[0]}`?"
    elif names:
        hint = f"it has {_listed([f'`{each}`' for each in names])}"
    else:
        hint = "it has no fields"
    return f"{descriptor.full_name} has no field `{name}`; {hint}"

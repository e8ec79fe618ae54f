"""Messages written as JSON by functions that are made once for each message type.

The text is what ``json.dumps`` makes of ``json_format.MessageToDict``, at a fraction of its cost, since nothing is
looked up in descriptors again. What is rare or fails is left to ``json_format`` itself: its errors are the same.
"""

from __future__ import annotations

import ctypes
import json
import math
from binascii import b2a_base64
from collections.abc import Callable
from functools import cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor as Field

from sdk._protos.wire_format import is_repeated, map_entry
from sdk._web.json_kinds import FREE_TYPES, NULL_VALUE, TEXT_TYPES, WRAPPERS_FILE, Unusual, has_own_names

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

_Write: TypeAlias = "Callable[[Any], str]"

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
#: Return the JSON text of a JSON value, on one line.
to_text = _ENCODER.encode


def message_text(message: Message) -> str:
    """Return the JSON text of a message.

    Raises:
        json_format.Error, TypeError, ValueError: JSON can't express it; raised by ``json_format``.

    Example:
        >>> from google.protobuf.type_pb2 import Option
        >>> message_text(Option(name="ü"))
        '{"name":"ü"}'
    """
    try:
        return _writer(type(message).DESCRIPTOR)(message)
    except Unusual:
        return to_text(json_format.MessageToDict(message))


@cache
def _writer(kind: Descriptor) -> _Write:
    """Return the function that writes messages of a type."""
    if kind.full_name in TEXT_TYPES:
        return _write_own_text
    if kind.full_name in FREE_TYPES:
        return _write_by_protobuf
    if kind.file.name == WRAPPERS_FILE:
        write_value = _value_writer(kind.fields_by_name["value"])
        return lambda message: write_value(message.value)
    return _MessageWriter(kind).write


class _MessageWriter:
    """Writes messages of one type.

    Args:
        kind: The type.
    """

    __slots__ = ("_fields", "_kind")

    def __init__(self, kind: Descriptor) -> None:
        self._kind = kind
        #: Made for the first message: a type may be recursive.
        self._fields: dict[int, tuple[str, _Write]] | None = None

    def write(self, message: Message) -> str:
        """Return the JSON text of a message."""
        fields = self._fields
        if fields is None:
            fields = self._fields = {
                field.number: (f"{encode_basestring(field.json_name)}:", _field_writer(field))
                for field in self._kind.fields
            }
        parts = []
        for field, value in type(message).ListFields(message):
            found = fields.get(field.number)
            if found is None:  # an extension
                raise Unusual
            name, write = found
            parts.append(name + write(value))
        return "{" + ",".join(parts) + "}"


def _field_writer(field: Field) -> _Write:
    entry = map_entry(field)
    if entry is not None:
        return _map_writer(entry.fields_by_name["key"], _value_writer(entry.fields_by_name["value"]))
    write = _value_writer(field)
    if is_repeated(field):
        return lambda values: "[" + ",".join(map(write, values)) + "]"
    return write


def _map_writer(key: Field, write: _Write) -> _Write:
    write_key = _write_bool if key.type == Field.TYPE_BOOL else str

    def write_map(values: Any) -> str:
        items = [f"{encode_basestring(write_key(name))}:{write(value)}" for name, value in values.items()]
        return "{" + ",".join(items) + "}"

    return write_map


def _value_writer(field: Field) -> _Write:
    """Return the function that writes one value of a field, also of a repeated one."""
    if field.message_type is not None:
        kind = field.message_type
        return lambda message: _writer(kind)(message)
    if field.enum_type is not None:
        return _enum_writer(field)
    return _SCALARS[field.type]


def _enum_writer(field: Field) -> _Write:
    kind = field.enum_type
    assert kind is not None
    if kind.full_name == NULL_VALUE:
        return lambda number: "null"
    if has_own_names(kind):
        return _write_by_protobuf_only
    # Looked up by number: of several names for one number, this is the first.
    names = {value.number: f'"{kind.values_by_number[value.number].name}"' for value in kind.values}
    is_closed = kind.is_closed

    def write_enum(number: int) -> str:
        found = names.get(number)
        if found is None:
            if is_closed:
                raise Unusual
            return str(number)
        return found

    return write_enum


def _write_bool(value: bool) -> str:
    return "true" if value else "false"


def _write_long(value: int) -> str:
    return f'"{value}"'


def _write_bytes(value: bytes) -> str:
    return f'"{b2a_base64(value, newline=False).decode()}"'


def _write_double(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _write_float(value: float) -> str:
    if math.isfinite(value):
        # The shortest decimal that a 32-bit float has, as in json_format: 0.1, not 0.10000000149011612.
        for digits in (6, 7, 8, 9):
            short = float(f"{value:.{digits}g}")
            if ctypes.c_float(short).value == value:
                return float.__repr__(short)
    return _write_double(value)


def _write_own_text(message: Any) -> str:
    try:
        return encode_basestring(message.ToJsonString())
    except ValueError:
        raise Unusual from None


def _write_by_protobuf(message: Message) -> str:
    try:
        return to_text(json_format.MessageToDict(message))
    except (TypeError, ValueError, json_format.Error):
        raise Unusual from None  # the message around it makes the error, which names the field


def _write_by_protobuf_only(value: Any) -> str:
    raise Unusual


_SCALARS: dict[int, _Write] = {
    Field.TYPE_INT32: str,
    Field.TYPE_SINT32: str,
    Field.TYPE_UINT32: str,
    Field.TYPE_FIXED32: str,
    Field.TYPE_SFIXED32: str,
    Field.TYPE_INT64: _write_long,
    Field.TYPE_SINT64: _write_long,
    Field.TYPE_UINT64: _write_long,
    Field.TYPE_FIXED64: _write_long,
    Field.TYPE_SFIXED64: _write_long,
    Field.TYPE_BOOL: _write_bool,
    Field.TYPE_STRING: encode_basestring,
    Field.TYPE_BYTES: _write_bytes,
    Field.TYPE_DOUBLE: _write_double,
    Field.TYPE_FLOAT: _write_float,
}

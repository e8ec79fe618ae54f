"""Compatibility of protobuf field types on the wire: whether one field can read the bytes of another, and the loss.

The wire format has no types, only six wire types (https://protobuf.dev/programming-guides/encoding/). Fields whose
types share a wire type can read each other's bytes, but may decode another value
(https://protobuf.dev/programming-guides/proto3/#updating).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor as Field

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor


class Compatibility(IntEnum):
    """Degree to which a reader gets the values of a writer."""

    SAME = 0
    LOSSY = 1  # it reads a value, but not always the one that was written
    BROKEN = 2  # it fails, or reads no value


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compatibility of a reading field with a writing field, and the reason if it is not the same."""

    compatibility: Compatibility
    reason: str = ""


_SAME = Comparison(Compatibility.SAME)
_UNREADABLE = Comparison(Compatibility.BROKEN, "the two are encoded differently")


@dataclass(frozen=True, slots=True)
class _Number:
    encoding: str
    bits: int
    signed: bool


_NUMBERS = {
    Field.TYPE_INT32: _Number("varint", 32, True),
    Field.TYPE_INT64: _Number("varint", 64, True),
    Field.TYPE_UINT32: _Number("varint", 32, False),
    Field.TYPE_UINT64: _Number("varint", 64, False),
    Field.TYPE_BOOL: _Number("varint", 1, False),
    Field.TYPE_ENUM: _Number("varint", 32, True),
    Field.TYPE_SINT32: _Number("zigzag", 32, True),
    Field.TYPE_SINT64: _Number("zigzag", 64, True),
    Field.TYPE_FIXED32: _Number("32 bits", 32, False),
    Field.TYPE_SFIXED32: _Number("32 bits", 32, True),
    Field.TYPE_FIXED64: _Number("64 bits", 64, False),
    Field.TYPE_SFIXED64: _Number("64 bits", 64, True),
}
_NAMES = {value: name[5:].lower() for name, value in vars(Field).items() if name.startswith("TYPE_")}


def compare_types(writer: int, reader: int) -> Comparison:
    """Compare the type of a field that is written with the type of the field that reads it.

    Args:
        writer: ``FieldDescriptor.type`` of the field that is written.
        reader: ``FieldDescriptor.type`` of the field that reads.

    Example:
        >>> compare_types(Field.TYPE_INT32, Field.TYPE_INT64).compatibility.name
        'SAME'
        >>> compare_types(Field.TYPE_INT64, Field.TYPE_INT32).reason
        'numbers that need more than 32 bits are truncated'
    """
    if writer == reader:
        return _SAME
    if (writer, reader) == (Field.TYPE_STRING, Field.TYPE_BYTES):
        return _SAME
    if (writer, reader) == (Field.TYPE_BYTES, Field.TYPE_STRING):
        return Comparison(Compatibility.BROKEN, "bytes that are not UTF-8 make the whole message unreadable")
    if (writer, reader) == (Field.TYPE_MESSAGE, Field.TYPE_BYTES):
        return Comparison(Compatibility.LOSSY, "the bytes are an encoded message")
    wrote, read = _NUMBERS.get(writer), _NUMBERS.get(reader)
    if wrote is None or read is None or wrote.encoding != read.encoding:
        return _UNREADABLE
    loss = _loss(writer, reader, wrote, read)
    return Comparison(Compatibility.LOSSY, loss) if loss else _SAME


def compare_labels(writer: Field, reader: Field) -> Comparison:
    """Compare the labels of two fields: one may be repeated and the other not."""
    if is_repeated(reader) or not is_repeated(writer):
        return _SAME
    if reader.type == Field.TYPE_MESSAGE:
        return Comparison(Compatibility.LOSSY, "several messages are merged into one")
    if reader.type in (Field.TYPE_STRING, Field.TYPE_BYTES):
        return Comparison(Compatibility.LOSSY, "only the last of several values is read")
    return Comparison(Compatibility.BROKEN, "packed numbers are not read")


def format_type(field: Field) -> str:
    """Return the type of a field in proto syntax, ``"repeated acme.Item"``."""
    entry = map_entry(field)
    if entry is not None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return f"map<{format_type(key)}, {format_type(value)}>"
    repeated = "repeated " if is_repeated(field) else ""
    return repeated + _base(field)


def map_entry(field: Field) -> Descriptor | None:
    """Return the entry message of a map field, which has its key and value; None for other fields."""
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def is_repeated(field: Field) -> bool:
    """Return whether a field is repeated or a map."""
    return _label(field, "is_repeated", "LABEL_REPEATED")


def is_required(field: Field) -> bool:
    """Return whether a field is required: a message without it can't be parsed."""
    return _label(field, "is_required", "LABEL_REQUIRED")


def _label(field: Any, name: str, label: str) -> bool:
    # protobuf before 6.32 does not have these properties; later versions deprecate `label`.
    value = getattr(field, name, None)
    return bool(field.label == getattr(Field, label) if value is None else value)


def _base(field: Field) -> str:
    if field.message_type is not None:
        group = "group " if field.type == Field.TYPE_GROUP else ""
        return f"{group}{field.message_type.full_name}"
    return str(field.enum_type.full_name) if field.enum_type is not None else _NAMES[field.type]


def _loss(writer: int, reader: int, wrote: _Number, read: _Number) -> str:
    if writer == Field.TYPE_BOOL:
        return ""
    if reader == Field.TYPE_BOOL:
        return "every number but 0 becomes true"
    if reader == Field.TYPE_ENUM:
        return "numbers that the enum does not have arrive as unknown values"
    if wrote.bits > read.bits:
        return f"numbers that need more than {read.bits} bits are truncated"
    if writer == Field.TYPE_ENUM:
        return ""  # negative numbers of enums are rare
    if wrote.signed and not read.signed:
        return "negative numbers become large positive ones"
    if read.signed and not wrote.signed and wrote.bits == read.bits:
        return f"numbers of 2^{read.bits - 1} and above become negative"
    return ""

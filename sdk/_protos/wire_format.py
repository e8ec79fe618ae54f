"""Which field reads what another one wrote: the types of protobuf's wire format, and what is lost between them.

The format has no types, only six ways to write a value ("Encoding" in protobuf's documentation). Fields of the types of
one group read each other's bytes; what they make of them may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor as Field

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor


class Reading(IntEnum):
    """How well a reader understands a writer."""

    SAME = 0
    LOSSY = 1  # it reads something, and not always what was meant
    BROKEN = 2  # it fails, or finds nothing


@dataclass(frozen=True, slots=True)
class Verdict:
    """How well one field reads another, and what goes wrong."""

    reading: Reading
    why: str = ""


_SAME = Verdict(Reading.SAME)
_UNREADABLE = Verdict(Reading.BROKEN, "the two are encoded differently")


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


def reads_type(writer: int, reader: int) -> Verdict:
    """Return how a value of one type is read as another.

    Args:
        writer: ``FieldDescriptor.type`` of who writes.
        reader: That of who reads.

    Example:
        >>> reads_type(Field.TYPE_INT32, Field.TYPE_INT64).reading.name
        'SAME'
        >>> reads_type(Field.TYPE_INT64, Field.TYPE_INT32).why
        'numbers that need more than 32 bits are cut'
    """
    if writer == reader:
        return _SAME
    if (writer, reader) == (Field.TYPE_STRING, Field.TYPE_BYTES):
        return _SAME
    if (writer, reader) == (Field.TYPE_BYTES, Field.TYPE_STRING):
        return Verdict(Reading.BROKEN, "bytes that are no UTF-8 make the whole message unreadable")
    if (writer, reader) == (Field.TYPE_MESSAGE, Field.TYPE_BYTES):
        return Verdict(Reading.LOSSY, "the bytes are an encoded message")
    wrote, read = _NUMBERS.get(writer), _NUMBERS.get(reader)
    if wrote is None or read is None or wrote.encoding != read.encoding:
        return _UNREADABLE
    loss = _loss(writer, reader, wrote, read)
    return Verdict(Reading.LOSSY, loss) if loss else _SAME


def reads_label(writer: Field, reader: Field) -> Verdict:
    """Return how a field is read by one that is repeated where it is not, or the reverse."""
    if is_repeated(reader) or not is_repeated(writer):
        return _SAME
    if reader.type == Field.TYPE_MESSAGE:
        return Verdict(Reading.LOSSY, "several messages are merged into one")
    if reader.type in (Field.TYPE_STRING, Field.TYPE_BYTES):
        return Verdict(Reading.LOSSY, "of several values only the last is read")
    return Verdict(Reading.BROKEN, "packed numbers are not read")


def spell(field: Field) -> str:
    """Return the type of a field as a proto file spells it, ``"repeated acme.Item"``."""
    entry = map_entry(field)
    if entry is not None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return f"map<{spell(key)}, {spell(value)}>"
    repeated = "repeated " if is_repeated(field) else ""
    return repeated + _base(field)


def map_entry(field: Field) -> Descriptor | None:
    """Return the message that holds the key and the value of a map field; None for other fields."""
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def is_repeated(field: Field) -> bool:
    """Return whether a field holds any number of values."""
    return _label(field, "is_repeated", "LABEL_REPEATED")


def is_required(field: Field) -> bool:
    """Return whether a message without the field can't be read."""
    return _label(field, "is_required", "LABEL_REQUIRED")


def _label(field: Any, name: str, label: str) -> bool:
    # protobuf before 6.32 has no such properties, and later ones warn of `label`.
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
        return f"numbers that need more than {read.bits} bits are cut"
    if writer == Field.TYPE_ENUM:
        return ""  # negative numbers of enums are rare enough
    if wrote.signed and not read.signed:
        return "negative numbers become large ones"
    if read.signed and not wrote.signed and wrote.bits == read.bits:
        return f"numbers from 2^{read.bits - 1} on become negative"
    return ""

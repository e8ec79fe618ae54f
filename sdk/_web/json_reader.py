"""Messages made from JSON by functions that are made once for each message type.

The message is that of ``json_format.ParseDict``, at a fraction of its cost, since nothing is looked up in descriptors
again. What is rare or wrong is left to ``json_format`` itself, which starts from the beginning, so that nothing else is
taken and the errors are the same.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor as Field

from sdk._protos.wire_format import is_repeated, map_entry
from sdk._web.json_kinds import FREE_TYPES, NULL_VALUE, TEXT_TYPES, WRAPPERS_FILE, Unusual, has_own_names

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.message import Message

#: Fill a message from a JSON value at a depth, that of the whole request being 1.
_Fill: TypeAlias = "Callable[[Any, Any, int], None]"
#: Return the value of a field from a JSON value.
_Convert: TypeAlias = "Callable[[Any], Any]"

# Messages within one another, as in json_format.
_MAX_DEPTH = 100
# Floats above it are rounded or refused, and integers above 2**53 may be rounded: json_format decides.
_LARGEST_FLOAT = 3e38
_LARGEST_EXACT = 1 << 53


def message_of(value: Any, kind: type[Message]) -> Message:
    """Return the message of a JSON value.

    Args:
        value: The value, as ``json.loads`` returns it.
        kind: The class of the message.

    Raises:
        json_format.ParseError, TypeError, AttributeError, RecursionError: It is not JSON of such a message; raised by
            ``json_format``.

    Example:
        >>> from google.protobuf.type_pb2 import Option
        >>> message_of({"name": "ü"}, Option).name
        'ü'
    """
    message = kind()
    try:
        _filler(kind.DESCRIPTOR)(message, value, 1)
    except (Unusual, ValueError, TypeError, OverflowError):
        return json_format.ParseDict(value, kind())
    return message


@cache
def _filler(kind: Descriptor) -> _Fill:
    """Return the function that fills messages of a type."""
    if kind.full_name in TEXT_TYPES:
        return _fill_from_text
    if kind.full_name in FREE_TYPES:
        return _fill_by_protobuf
    if kind.file.name == WRAPPERS_FILE:
        return _wrapper_filler(kind)
    return _MessageReader(kind).fill


class _MessageReader:
    """Fills messages of one type.

    Args:
        kind: The type.
    """

    __slots__ = ("_clashing", "_fields", "_kind", "_slots")

    def __init__(self, kind: Descriptor) -> None:
        self._kind = kind
        #: Key → what fills the field. Made for the first message: a type may be recursive.
        self._fields: dict[str, _Fill] | None = None
        #: Key → what may be given only once: the field, or the oneof that it is in.
        self._slots: dict[str, str] = {}
        #: Keys with another key for the same slot.
        self._clashing: frozenset[str] = frozenset()

    def fill(self, message: Any, value: Any, depth: int) -> None:
        """Fill a message from a JSON object.

        Raises:
            Unusual: It is left to ``json_format``; so are the errors of protobuf for a value.
        """
        fields = self._fields
        if fields is None:
            fields = self._fields = self._learn()
        if type(value) is not dict or depth > _MAX_DEPTH:
            raise Unusual
        if self._clashing and not self._clashing.isdisjoint(value):
            slots = self._slots
            if len({slots.get(key) for key in value}) < len(value):
                raise Unusual
        for key, item in value.items():
            fill = fields.get(key)
            if fill is None:
                raise Unusual
            fill(message, item, depth)

    def _learn(self) -> dict[str, _Fill]:
        fields = self._kind.fields
        # No JSON name is the name of another field or of a oneof: protobuf refuses such a message.
        keys = {key: field for field in fields for key in (field.name, field.json_name)}
        self._slots = {
            key: field.name if field.containing_oneof is None else field.containing_oneof.name
            for key, field in keys.items()
        }
        clashing = {field.name for field in fields if field.json_name != field.name}
        for oneof in self._kind.oneofs:
            if len(oneof.fields) > 1:
                clashing |= {key for key, slot in self._slots.items() if slot == oneof.name}
        self._clashing = frozenset(clashing)
        return {key: _field_filler(field) for key, field in keys.items()}


def _field_filler(field: Field) -> _Fill:
    """Return the function that sets a field of a message."""
    fill = _set_filler(field)
    kind = field.message_type or field.enum_type
    if kind is not None and kind.full_name in (NULL_VALUE, "google.protobuf.Value"):
        return fill

    def fill_unless_null(message: Any, value: Any, depth: int) -> None:
        if value is not None:
            fill(message, value, depth)

    return fill_unless_null


def _set_filler(field: Field) -> _Fill:
    if map_entry(field) is not None:
        return _map_filler(field)
    kind, name = field.message_type, field.name
    if kind is None:
        return _scalar_filler(field)
    if not is_repeated(field):

        def fill_message(message: Any, value: Any, depth: int) -> None:
            inner = getattr(message, name)
            inner.SetInParent()
            _filler(kind)(inner, value, depth + 1)

        return fill_message

    def fill_messages(message: Any, value: Any, depth: int) -> None:
        if type(value) is not list:
            raise Unusual
        items, fill = getattr(message, name), _filler(kind)
        for item in value:
            fill(items.add(), item, depth + 1)

    return fill_messages


def _scalar_filler(field: Field) -> _Fill:
    name, convert = field.name, _converter(field)
    if not is_repeated(field):

        def fill_scalar(message: Any, value: Any, depth: int) -> None:
            setattr(message, name, convert(value))

        return fill_scalar

    def fill_scalars(message: Any, value: Any, depth: int) -> None:
        if type(value) is not list:
            raise Unusual
        getattr(message, name).extend([convert(item) for item in value])

    return fill_scalars


def _map_filler(field: Field) -> _Fill:
    entry, name = field.message_type, field.name
    assert entry is not None
    key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
    convert_key = {Field.TYPE_BOOL: _bool_key, Field.TYPE_STRING: _string}.get(key_field.type, _int_key)
    kind = value_field.message_type
    convert = _converter(value_field) if kind is None else None

    def fill_map(message: Any, value: Any, depth: int) -> None:
        if type(value) is not dict:
            raise Unusual
        items = getattr(message, name)
        if convert is not None:
            for key, item in value.items():
                items[convert_key(key)] = convert(item)
            return
        assert kind is not None
        fill = _filler(kind)
        for key, item in value.items():
            fill(items[convert_key(key)], item, depth + 1)

    return fill_map


def _wrapper_filler(kind: Descriptor) -> _Fill:
    convert = _converter(kind.fields_by_name["value"])

    def fill_wrapper(message: Any, value: Any, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise Unusual
        message.value = convert(value)

    return fill_wrapper


def _fill_from_text(message: Any, value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise Unusual
    message.FromJsonString(value)


def _fill_by_protobuf(message: Any, value: Any, depth: int) -> None:
    if value is None:
        raise Unusual
    try:
        json_format.ParseDict(value, message, max_recursion_depth=_MAX_DEPTH + 1 - depth)
    except (json_format.ParseError, AttributeError, KeyError):
        raise Unusual from None  # the message around it makes the error, which names the field


def _converter(field: Field) -> _Convert:
    """Return the function that makes one value of a field, also of a repeated one."""
    if field.enum_type is not None:
        return _enum_converter(field.enum_type)
    return _CONVERTERS.get(field.type, _integer)


def _enum_converter(kind: EnumDescriptor) -> _Convert:
    if kind.full_name == NULL_VALUE or has_own_names(kind):
        return _left_to_protobuf
    # Names and numbers are never equal.
    numbers: dict[Any, int] = {name: value.number for name, value in kind.values_by_name.items()}
    numbers |= {number: number for number in kind.values_by_number}

    def convert(value: Any) -> int:
        if type(value) is not str and type(value) is not int:
            raise Unusual
        found = numbers.get(value)
        if found is None:
            raise Unusual
        return found

    return convert


def _left_to_protobuf(value: Any) -> Any:
    raise Unusual


def _string(value: Any) -> str:
    if type(value) is not str:
        raise Unusual
    return value


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is str:  # as 64-bit integers are written
        return _int_key(value)
    raise Unusual


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Unusual
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not str or not value.isascii():
        raise Unusual
    return urlsafe_b64decode(value + "=" * (4 - len(value) % 4))


def _float(value: Any) -> float:
    if type(value) is float and -_LARGEST_FLOAT < value < _LARGEST_FLOAT:
        return value
    if type(value) is int and -_LARGEST_EXACT < value < _LARGEST_EXACT:
        return float(value)
    raise Unusual


def _bool_key(value: Any) -> bool:
    if value not in ("true", "false"):
        raise Unusual
    return bool(value == "true")


def _int_key(value: str) -> int:
    digits = value[1:] if value.startswith("-") else value
    if not (digits.isdecimal() and digits.isascii()):
        raise Unusual
    return int(value)


#: Integers are not in it.
_CONVERTERS: dict[int, _Convert] = {
    Field.TYPE_STRING: _string,
    Field.TYPE_BYTES: _bytes,
    Field.TYPE_BOOL: _bool,
    Field.TYPE_DOUBLE: _float,
    Field.TYPE_FLOAT: _float,
}

"""The message types for which ProtoJSON has a special form, https://protobuf.dev/programming-guides/json/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

#: Types whose JSON is a text, with ``ToJsonString`` and ``FromJsonString``.
TEXT_TYPES = frozenset(f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask"))
#: Types whose JSON can be any value.
FREE_TYPES = frozenset(f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue"))
#: The file of the types whose JSON is that of their one field.
WRAPPERS_FILE = "google/protobuf/wrappers.proto"
NULL_VALUE = "google.protobuf.NullValue"


class Unusual(Exception):
    """A value that is left to ``json_format``, which converts it, or raises an error that says what is wrong."""


def has_own_names(kind: EnumDescriptor) -> bool:
    """Return True if an option gives values of an enum other names in JSON, which only ``json_format`` knows."""
    try:
        option: Any = descriptor_pool.Default().FindExtensionByName("pb.enumvalue.json")
    except KeyError:
        return False
    return any(value.GetOptions().HasExtension(option) for value in kind.values)

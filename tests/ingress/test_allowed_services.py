"""Resolution of the allow-list of services."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from sdk import GrpcOptions, OptionsError
from sdk._ingress.allowed_services import resolve_services
from sdk._ingress.builtin.services import no_route_status
from sdk._ingress.registry import Registry, Replica
from sdk._xds.snapshot import Endpoint

HEALTH = "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server"
REFLECTION = "grpc_reflection.v1alpha.reflection_pb2_grpc:add_ServerReflectionServicer_to_server"


def resolve(*names: str) -> Any:
    return resolve_services(GrpcOptions(grpc_servicer_functions=names)).grpc_servicer_functions


def test_functions_and_names_are_resolved() -> None:
    names = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
    assert resolve(HEALTH, REFLECTION) == names
    assert resolve(*names) == names, "resolved names stay as they are"
    assert resolve("NoPackage", HEALTH, "grpc.health.v1.Health") == ("NoPackage", "grpc.health.v1.Health")


def test_without_a_list_nothing_is_imported() -> None:
    options = GrpcOptions()
    assert resolve_services(options) is options


def test_code_of_an_old_grpcio(monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    def add(servicer: Any, server: Any) -> None:
        handlers = {"Do": grpc.unary_unary_rpc_method_handler(servicer.Do)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("old.Style", handlers),))

    module = ModuleType("old_pb2_grpc")
    module.add_StyleServicer_to_server = add  # type: ignore[attr-defined]  # as in a generated module
    module.add_nothing = lambda servicer, server: None  # type: ignore[attr-defined]  # a function that registers nothing
    monkeypatch.setitem(sys.modules, "old_pb2_grpc", module)
    assert resolve("old_pb2_grpc.add_StyleServicer_to_server") == ("old.Style",)
    with pytest.raises(OptionsError, match=r"'old_pb2_grpc.add_nothing' can't be used: it registers no service$"):
        resolve("old_pb2_grpc.add_nothing")


def test_every_invalid_path_is_reported_in_one_line() -> None:
    with pytest.raises(OptionsError) as raised:
        resolve("no_such_module.add_X_to_server", "grpc_health.v1.health_pb2_grpc.add_Helth_to_server", HEALTH, "len")
    text = str(raised.value)
    assert text.startswith("GrpcOptions: grpc_servicer_functions: 'no_such_module.add_X_to_server' can't be used: No")
    assert "add_Helth_to_server' can't be used: module" in text
    assert "'len' can't be used" in text
    assert "\n" not in text
    assert HEALTH not in text


def test_an_unlisted_service_has_the_status_of_an_unknown_one() -> None:
    registry = Registry(lease_s=5, first_version=1, options=GrpcOptions(grpc_servicer_functions=("t.Public",)))
    registry.register(Replica("app", "D", ("t.Public", "t.Private"), Endpoint("r", "127.0.0.1", 4000)))
    code, details = no_route_status(registry.snapshot, "/t.Private/Do", "app")
    assert (code.name, details) == ("UNIMPLEMENTED", "Application 'app' has no method 'Do' of service 't.Private'.")

"""The option ``validate``: its values, the rules that it needs, and what it does where no message has one."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from orders_pb2 import Note, Order
from orders_sdk import ORDERS, OrdersSyncClient
from user_defined_protos_sdk import USER_DEFINED_SERVICE

from sdk import DefinitionError, MissingExtraError, grpc_deployment
from sdk._contract.validation import checks_of
from sdk._validation import broken_rules, validator
from sdk._wire.dispatch import build_routes
from sdk._wire.route import Route
from tests.validation.order_apps import Orders, Some, _Orders


def problems(validate: Any) -> list[str]:
    with pytest.raises(DefinitionError) as raised:
        grpc_deployment(validate=validate)(type("Wrong", (_Orders,), {}))
    return [f"{each.rule}: {each.message} → {each.remedy}" for each in raised.value.problems]


def test_wrong_values_are_told_together() -> None:
    assert problems("request") == [
        'validate: validate is \'request\' → write True, False, "requests", "responses" or "both", or a mapping of '
        "these by RPC"
    ]
    assert problems({"Place": 1, "Folow": True, "Gone": False}) == [
        'validate: validate of `Place` is 1 → write True, False, "requests", "responses" or "both"',
        "validate: validate names `Folow`, which is not an RPC of orders.Orders → write Follow",
        "validate: validate names `Gone`, which is not an RPC of orders.Orders → write one of Place, Follow, Collect, "
        'Exchange, Echo, Divide, or "*" for all others',
    ]


def test_only_messages_with_rules_are_checked() -> None:
    found = {path.rpartition("/")[2]: tuple(checks) for path, checks in checks_of([ORDERS], "both").items()}
    assert found == {
        "Place": (True, True),
        "Follow": (True, True),
        "Collect": (True, True),
        "Exchange": (True, True),
        "Divide": (True, False),
    }
    assert checks_of([ORDERS], False) == {}
    assert checks_of([USER_DEFINED_SERVICE], "both") == {}
    found = {
        path.rpartition("/")[2]: tuple(checks) for path, checks in vars(Some)["__grpc_definition__"].checks.items()
    }
    assert "Place" not in found
    assert found["Follow"] == (False, True)


def test_a_method_without_rules_has_the_route_that_it_had() -> None:
    routes = build_routes(vars(Orders)["__grpc_definition__"].bindings(Orders()))
    assert {path.decode().rpartition("/")[2] for path, route in routes.items() if type(route) is Route} == {"Echo"}


def test_a_definition_can_be_pickled() -> None:
    definition = vars(Some)["__grpc_definition__"]
    copy = pickle.loads(pickle.dumps(definition))
    assert (copy.validate, copy.checks) == (definition.validate, definition.checks)


@pytest.fixture
def without_protovalidate(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "protovalidate", None)
    caches = (validator._protovalidate, validator.collector, broken_rules._broken_in_process)
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


SAID = r"Validation of messages needs protovalidate, which is not installed: pip install 'ray-grpc-sdk\[validate\]'"


@pytest.mark.usefixtures("without_protovalidate")
def test_the_error_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=SAID):
        grpc_deployment(validate=True)(type("Named", (_Orders,), {}))
    with pytest.raises(MissingExtraError, match=SAID):
        OrdersSyncClient("127.0.0.1:1", validate=True)
    # Nothing that has no rules needs it.
    grpc_deployment(validate={"Echo": "both"})(type("Without", (_Orders,), {}))
    OrdersSyncClient("127.0.0.1:1").close()


def test_validation_needs_no_copy_of_the_rules_proto(tmp_path: Path) -> None:
    import subprocess

    program = """\
import sys
from orders_pb2 import Order
from sdk._validation.validator import check_request
from sdk.errors import RpcError
before = {name for name in sys.modules if name.endswith("validate_pb2")}
try:
    check_request(Order())
except RpcError as error:
    print(len(error.errors))
ours = {file for file in sys.modules if file.startswith("google.rpc") or file.endswith("validate_pb2")} - before
print(ours)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "set()"]


def test_messages_without_rules_keep_them() -> None:
    validator.check_request(Note())
    validator.check_request(Order(id="abc", count=1))

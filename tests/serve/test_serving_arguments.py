"""The spellings of Ray Serve's guide: what `sdk.start` and `sdk.run` take, and the equivalent of what they do not."""

from __future__ import annotations

from typing import Any

import pytest
from ray.serve.config import gRPCOptions

import sdk
from sdk import GrpcOptions, OptionsError, _serving


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Options that `sdk.start` and `sdk.run` pass on."""
    calls: list[Any] = []

    class Fake:
        def start(self, options: Any) -> None:
            calls.append(options)

        def run(self, target: Any, *, options: Any, **_: Any) -> None:
            calls.append(options)

    monkeypatch.setattr(_serving, "_serving", lambda user: Fake())
    return calls


def test_the_options_of_serve_are_taken(started: list[Any]) -> None:
    function = "user_defined_protos_pb2_grpc.add_UserDefinedServiceServicer_to_server"
    of_serve: Any = gRPCOptions(port=9001, grpc_servicer_functions=[function], request_timeout_s=3)
    sdk.start(of_serve)
    sdk.start(grpc_options=of_serve)
    sdk.run(None, grpc_options=of_serve, route_prefix=None)
    expected = GrpcOptions(port=9001, grpc_servicer_functions=(function,), request_timeout_s=3)
    assert started == [expected] * 3


def test_its_default_of_no_functions_allows_all_services(started: list[Any]) -> None:
    of_serve: Any = gRPCOptions()
    sdk.start(of_serve)
    sdk.start()
    sdk.start(GrpcOptions(port=9002))
    assert started == [GrpcOptions(), None, GrpcOptions(port=9002)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"route_prefix": "/a"},
            "sdk.run: route_prefix has no effect on gRPC: it is the path of HTTP requests; gRPC calls name the "
            "application in `application` metadata",
        ),
        ({"port": 9001}, "sdk.run: port is an option of the ingress: pass options=GrpcOptions(port=…)"),
        ({"optoins": None}, "sdk.run: unknown argument 'optoins'"),
        ({"options": {"port": 1}}, "sdk.run: options must be a GrpcOptions, not {'port': 1}"),
        (
            {"options": GrpcOptions(), "grpc_options": GrpcOptions(), "blocking": True},
            "sdk.run: blocking has no effect on gRPC: `sdk run MODULE:NAME` serves until Ctrl-C; options and "
            "grpc_options are the same argument; pass one of them",
        ),
    ],
)
def test_what_can_not_be_taken(started: list[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as raised:
        sdk.run(None, **arguments)
    assert str(raised.value) == message
    assert started == []

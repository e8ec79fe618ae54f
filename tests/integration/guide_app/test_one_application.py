"""One application: the guide's calls through all layers."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import grpc
import pytest
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.generated.serve_pb2 import HealthzRequest, ListApplicationsRequest
from ray.serve.generated.serve_pb2_grpc import RayServeAPIServiceStub
from user_defined_protos_pb2 import UserDefinedMessage2
from user_defined_protos_pb2_grpc import UserDefinedServiceStub
from user_defined_protos_sdk import UserDefinedServiceClient, UserDefinedServiceSyncClient

import sdk
from sdk._serve.internals import application_overview, application_overviews, application_states
from tests.integration.clients import FOO, error_of, trailing
from tests.web.http_client import ask_at

APP1 = (("application", "app1"),)


def test_routes_to_the_only_application_without_metadata(channel: grpc.Channel) -> None:
    response, call = UserDefinedServiceStub(channel).__call__.with_call(FOO)
    assert (response.greeting, response.num) == ("Hello foo from bar", 60)
    assert call.code() is grpc.StatusCode.OK
    assert len(trailing(call)["request_id"]) == 36


def test_an_empty_application_name_counts_as_none(channel: grpc.Channel) -> None:
    assert UserDefinedServiceStub(channel).__call__(FOO, metadata=(("application", ""),)).num == 60


def test_a_wrong_application_is_not_found(channel: grpc.Channel) -> None:
    error = error_of(UserDefinedServiceStub(channel).__call__, FOO, metadata=(("application", "x"),))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == (
        "Application 'x' not found. Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
    )


def test_a_process_asks_ray_serves_controller_before_and_after_it_imports_ray_serve() -> None:
    program = f"""
import sys
import ray
from sdk._ingress.serve_link import ServeLink

ray.init(address="{ray.get_runtime_context().gcs_address}", log_to_driver=False)
link = ServeLink("SERVE_CONTROLLER_ACTOR", "serve", "ray.serve._private.controller")
assert link.is_running() and "app1" in link.list_deployments()
assert "ray.serve" not in sys.modules

from sdk._serve.internals import find_serve_controller

assert ray.get(find_serve_controller().get_serve_status.remote("app1"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_metadata(channel: grpc.Channel) -> None:
    metadata = (("application", "app1"), ("request_id", "123"), ("multiplexed_model_id", "999"))
    response, call = UserDefinedServiceStub(channel).Multiplexing.with_call(UserDefinedMessage2(), metadata=metadata)
    assert response.greeting == "Method2 called model, loading model: 999"
    assert trailing(call) == {"request_id": "123"}


def test_streaming(channel: grpc.Channel) -> None:
    call = UserDefinedServiceStub(channel).Streaming(FOO, metadata=(*APP1, ("request_id", "s")))
    assert [response.num for response in call] == [60 + i for i in range(10)]
    assert trailing(call) == {"request_id": "s"}


async def test_aio_client(ingress: Any) -> None:
    async with grpc.aio.insecure_channel(ingress.address) as channel:
        stub = UserDefinedServiceStub(channel)
        call = stub.__call__(FOO, metadata=APP1)
        assert (await call).num == 60
        assert "request_id" in [key for key, _ in await call.trailing_metadata()]
        assert [r.num async for r in stub.Streaming(FOO)] == [60 + i for i in range(10)]


async def test_typed_clients(ingress: Any) -> None:
    with UserDefinedServiceSyncClient(ingress.address, application="app1", model_id="m1") as client:
        assert client.Multiplexing(UserDefinedMessage2()).greeting.endswith("loading model: m1")
        assert [r.num for r in client.Streaming(FOO)] == [60 + i for i in range(10)]

    async def main() -> None:
        async with UserDefinedServiceClient(ingress.address, application="app1") as client:
            assert (await client.Multiplexing(UserDefinedMessage2(), model_id="m2")).greeting.endswith("model: m2")

    await main()


def test_serve_api(channel: grpc.Channel) -> None:
    stub = RayServeAPIServiceStub(channel)
    response, call = stub.ListApplications.with_call(ListApplicationsRequest(), metadata=(("request_id", "l"),))
    assert list(response.application_names) == ["app1"]
    assert trailing(call)["request_id"] == "l"
    assert stub.Healthz(HealthzRequest()).message == "success"


def test_unknown_method_is_named(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/userdefinedprotos.UserDefinedService/Nope")
    error = error_of(call, b"")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "'app1'" in error.details()
    assert "'Nope'" in error.details()
    assert "'userdefinedprotos.UserDefinedService'" in error.details()


def test_unknown_client_stream_is_answered_before_it_ends(channel: grpc.Channel) -> None:
    never = threading.Event()

    def requests() -> Any:
        yield b""
        never.wait(20)

    call = channel.stream_unary("/userdefinedprotos.UserDefinedService/Nope")
    error = error_of(call, requests(), timeout=10)
    never.set()
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_undecodable_request_names_the_message(channel: grpc.Channel) -> None:
    error = error_of(channel.unary_unary("/userdefinedprotos.UserDefinedService/__call__"), b"\xff\xff")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "userdefinedprotos.UserDefinedMessage" in error.details()


def test_status(ingress: Any) -> None:
    status = sdk.status()
    assert status.is_healthy
    assert status.proxies[0].address == ingress.address
    (application,) = status.applications
    (deployment,) = application.deployments
    assert (application.name, deployment.name, deployment.replicas) == ("app1", "Guide", 1)
    assert deployment.services == ("userdefinedprotos.UserDefinedService",)


def test_the_status_of_ray_serve_is_read_without_its_cost(ingress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = serve.status().applications

    def pickles(_: RequestRouterConfig) -> None:
        raise AssertionError("the configuration of each deployment is validated")

    monkeypatch.setattr(RequestRouterConfig, "_serialize_request_router_cls", pickles)
    assert application_overviews() == expected
    assert application_states() == {name: application.status for name, application in expected.items()}
    for deployment in expected["app1"].deployments.values():
        deployment.replica_states.clear()
    assert application_overview("app1") == expected["app1"]
    assert application_overview("unknown") is None
    assert sdk.status().applications[0].state == expected["app1"].status.value == "RUNNING"


def test_a_fixed_option_can_not_change(ingress: Any) -> None:
    with pytest.raises(sdk.IngressError, match=rf"port {ingress.port} → {ingress.port + 1}"):
        sdk.start(sdk.GrpcOptions(port=ingress.port + 1))


def test_browsers_and_curl_call_the_same_port(ingress: Any) -> None:
    path = "/userdefinedprotos.UserDefinedService/__call__"
    answer = ask_at(ingress.address, path, {"name": "foo", "num": "30", "origin": "bar"}, {"request_id": "r7"})
    assert (answer.status, answer.json, answer.headers["request_id"]) == (
        200,
        {"greeting": "Hello foo from bar", "num": "60"},
        "r7",
    )
    streamed = ask_at(ingress.address, path.replace("__call__", "Streaming"), {"name": "foo", "num": "30"})
    assert [line["num"] for line in streamed.lines] == [str(60 + i) for i in range(10)]
    document = ask_at(ingress.address, "/openapi.json", None)
    assert path in document.json["paths"]

"""Two applications: routing by metadata, sync handlers, and health while the second one starts and is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from sdk._serve.api import delete
from tests.integration import apps
from tests.integration.clients import FOO, error_of, trailing

APP1 = (("application", "app1"),)
APP2 = (("application", "app2"),)


@pytest.fixture(scope="module")
def states(ingress: Any) -> Iterator[Any]:
    """The states of the second application's service, from before it starts."""
    with grpc.insecure_channel(ingress.address) as channel:
        request = health_pb2.HealthCheckRequest(service="userdefinedprotos.UserDefinedService")
        states = HealthStub(channel).Watch(request, metadata=APP2, timeout=300)
        assert next(states).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        yield states
        states.cancel()


@pytest.fixture(autouse=True, scope="module")
def app2(states: Any, deploy: Any) -> None:
    deploy(apps.SyncGuide.bind(), "app2")


def test_each_is_reached_by_its_name(channel: grpc.Channel) -> None:
    stub = UserDefinedServiceStub(channel)
    assert stub.__call__(FOO, metadata=APP1).num == 60
    assert stub.__call__(FOO, metadata=APP2).num == 36


def test_the_last_of_two_names_counts(channel: grpc.Channel) -> None:
    stub = UserDefinedServiceStub(channel)
    assert stub.__call__(FOO, metadata=APP2 + APP1).num == 60
    assert stub.__call__(FOO, metadata=APP1 + APP2).num == 36


@pytest.mark.parametrize("name", [(), (("application", ""),)])
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_without_a_name_is_not_found(channel: grpc.Channel, kind: str, name: Any) -> None:
    call = getattr(channel, kind)("/userdefinedprotos.UserDefinedService/__call__")
    request = b"" if kind.startswith("unary") else iter([b""])
    metadata = (*name, ("request_id", "mine"))
    error = error_of(
        lambda: list(call(request, metadata=metadata)) if kind.endswith("stream") else call(request, metadata=metadata)
    )
    assert trailing(error)["request_id"] == "mine"
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == (
        "Application metadata not set. Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
    )


def test_a_service_that_no_application_serves_is_unimplemented(channel: grpc.Channel) -> None:
    error = error_of(channel.unary_unary("/nobody.Service/Method"), b"", metadata=APP1)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == "Application 'app1' has no method 'Method' of service 'nobody.Service'."


def test_without_a_name_a_service_that_no_application_serves_is_unimplemented(channel: grpc.Channel) -> None:
    error = error_of(channel.unary_unary("/nobody.Service/Method"), b"")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == "No application serves 'nobody.Service'."


def test_sync_handlers(channel: grpc.Channel) -> None:
    stub = UserDefinedServiceStub(channel)
    metadata = (*APP2, ("multiplexed_model_id", "m"))
    assert stub.Multiplexing(UserDefinedMessage2(), metadata=metadata).greeting == "m"
    many = stub.Streaming(UserDefinedMessage(name="x", num=1000), metadata=metadata)
    assert [r.num for r in many] == list(range(1000))


def test_watch_has_followed_the_start_and_follows_the_deletion_of_an_application(
    channel: grpc.Channel, states: Any
) -> None:
    seen = [next(states).status]
    while seen[-1] != health_pb2.HealthCheckResponse.SERVING:
        seen.append(next(states).status)
    delete("app2")
    while seen[-1] != health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
        seen.append(next(states).status)
    error = error_of(UserDefinedServiceStub(channel).__call__, FOO, metadata=APP2)
    assert error.code() is grpc.StatusCode.NOT_FOUND

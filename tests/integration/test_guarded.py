"""Interceptors, compression and rich errors of a real replica, seen by grpcio clients."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from tests.integration import guarded_app
from tests.integration.clients import FOO, error_of, metadata_for, trailing

TOKEN = metadata_for("guarded", token="right")


@pytest.fixture
def stub(channel: grpc.Channel) -> UserDefinedServiceStub:
    return UserDefinedServiceStub(channel)


@pytest.fixture(autouse=True, scope="module")
def app(deploy: Any) -> None:
    deploy(guarded_app.guarded(), "guarded")


def test_calls_pass_the_interceptors_to_async_and_sync_handlers(stub: UserDefinedServiceStub) -> None:
    for method, request in ((stub.__call__, FOO), (stub.Multiplexing, UserDefinedMessage2())):
        response, call = method.with_call(request, metadata=TOKEN)
        assert response.greeting.startswith("ipv4:127.0.0.1:")
        assert trailing(call)["signed"].startswith("/userdefinedprotos.UserDefinedService/")


def test_a_stream_passes_the_interceptors_and_arrives_whole(stub: UserDefinedServiceStub) -> None:
    call = stub.Streaming(FOO, metadata=TOKEN)
    assert [response.greeting for response in call] == ["long " * 1000] * 3
    assert trailing(call)["signed"] == "/userdefinedprotos.UserDefinedService/Streaming"


def test_an_interceptor_rejects_calls_of_every_kind(stub: UserDefinedServiceStub) -> None:
    for call in (stub.__call__, stub.Multiplexing, lambda *a, **k: list(stub.Streaming(*a, **k))):
        request = UserDefinedMessage2() if call is stub.Multiplexing else FOO
        error = error_of(call, request, metadata=metadata_for("guarded", token="wrong"))
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "no token")


def test_an_error_of_another_deployment_arrives_with_its_details(stub: UserDefinedServiceStub) -> None:
    error = error_of(stub.__call__, UserDefinedMessage(name="x"), metadata=TOKEN)
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "bad name")
    status = rpc_status.from_call(error)
    assert status is not None
    bad = BadRequest()
    assert status.details[0].Unpack(bad)
    assert bad.field_violations[0].description == "x is no name in guarded"

"""Two applications: routing by metadata, sync handlers."""

from __future__ import annotations

from typing import Any

import apps
import grpc
import pytest
from clients import FOO, error_of
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

APP1 = (("application", "app1"),)


@pytest.fixture(autouse=True, scope="module")
def two(deploy: Any) -> None:
    deploy(apps.Guide.bind(), "app1")
    deploy(apps.SyncGuide.bind(), "app2")


def test_each_is_reached_by_its_name(channel: grpc.Channel) -> None:
    stub = UserDefinedServiceStub(channel)
    assert stub.__call__(FOO, metadata=APP1).num == 60
    assert stub.__call__(FOO, metadata=(("application", "app2"),)).num == 36


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_without_metadata_is_not_found(channel: grpc.Channel, kind: str) -> None:
    call = getattr(channel, kind)("/userdefinedprotos.UserDefinedService/__call__")
    request = b"" if kind.startswith("unary") else iter([b""])
    error = error_of(lambda: list(call(request)) if kind.endswith("stream") else call(request))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == (
        "Application metadata not set. Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
    )


def test_sync_handlers(channel: grpc.Channel) -> None:
    stub = UserDefinedServiceStub(channel)
    metadata = (("application", "app2"), ("multiplexed_model_id", "m"))
    assert stub.Multiplexing(UserDefinedMessage2(), metadata=metadata).greeting == "m"
    many = stub.Streaming(UserDefinedMessage(name="x", num=5000), metadata=metadata)
    assert [r.num for r in many] == list(range(5000))

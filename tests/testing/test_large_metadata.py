"""Metadata of every size that the options allow, and beyond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from harness_apps import Greeter
from harness_pb2 import Number, Text
from harness_pb2_grpc import GreeterStub

from sdk import GrpcOptions

LIMIT = 32 << 10


def code(stub: GreeterStub, size: int, application: str = "default") -> grpc.StatusCode:
    metadata = (("application", application), ("token", "x" * size))
    call = stub.SayHello.future(Text(), metadata=metadata, timeout=10)
    return call.code()


@pytest.fixture
def stub(serving: Callable[..., Any]) -> GreeterStub:
    server = serving(Greeter.bind(), options=GrpcOptions(max_metadata_bytes=LIMIT))
    return GreeterStub(server.channel())


def test_what_is_allowed_arrives_also_where_there_is_no_route(stub: GreeterStub) -> None:
    assert code(stub, LIMIT - 1024) is grpc.StatusCode.OK
    assert code(stub, LIMIT - 1024, "other") is grpc.StatusCode.NOT_FOUND


def test_what_is_more_ends_its_own_call_only(stub: GreeterStub) -> None:
    running = stub.Chat(iter([Text(text="a")]))
    assert next(running).text == "A"
    counted = stub.Count(Number(number=3))
    assert code(stub, LIMIT + 1024) is grpc.StatusCode.INTERNAL, "Envoy resets it before it knows that it is a call"
    assert [one.number for one in counted] == [0, 1, 2]
    assert code(stub, 10) is grpc.StatusCode.OK

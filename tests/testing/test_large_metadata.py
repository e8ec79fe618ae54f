"""Metadata of every size that the options allow, and beyond."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from harness_pb2 import Number, Text
from harness_pb2_grpc import GreeterStub

from sdk import GrpcOptions
from tests.testing.harness_apps import Greeter

LIMIT = 32 << 10
# For what grpcio sends by itself: user-agent.
ROOM = 256


def call(stub: GreeterStub, size: int, application: str = "default") -> grpc.Call:
    """Make a call with so many bytes of metadata, if the application's name has seven letters."""
    # In two: one header above 64 KiB ends the connection.
    size -= len("applicationdefaulttokentoken")
    metadata = (("application", application), ("token", "x" * (size // 2)), ("token", "x" * (size - size // 2)))
    made: grpc.Call = stub.SayHello.future(Text(), metadata=metadata, timeout=10)
    made.code()  # waits for its end
    return made


def code(stub: GreeterStub, size: int, application: str = "default") -> grpc.StatusCode:
    return call(stub, size, application).code()


@pytest.fixture
def stub(serving: Callable[..., Any]) -> GreeterStub:
    server = serving(Greeter.bind(), options=GrpcOptions(max_metadata_bytes=LIMIT))
    return GreeterStub(server.channel())


def test_what_is_allowed_arrives_also_where_there_is_no_route(stub: GreeterStub) -> None:
    assert code(stub, LIMIT - ROOM) is grpc.StatusCode.OK
    assert code(stub, LIMIT - ROOM, "other") is grpc.StatusCode.NOT_FOUND


def test_what_is_more_ends_its_own_call_only(stub: GreeterStub) -> None:
    running = stub.Chat(iter([Text(text="a")]))
    assert next(running).text == "A"
    counted = stub.Count(Number(number=3))
    assert code(stub, LIMIT + 1) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert code(stub, 2 * LIMIT + 1024) is grpc.StatusCode.INTERNAL, "Envoy resets it before it knows that it is a call"
    assert [one.number for one in counted] == [0, 1, 2]
    assert code(stub, 10) is grpc.StatusCode.OK


def test_who_sends_more_is_told_how_much_it_may_be(stub: GreeterStub) -> None:
    refused = call(stub, LIMIT + 1)
    told = re.fullmatch(
        rf"the request has (\d+) bytes of metadata, more than the limit of {LIMIT} \(max_metadata_bytes\)",
        refused.details() or "",
    )
    assert told is not None
    assert LIMIT < int(told[1]) < LIMIT + ROOM
    assert dict(refused.trailing_metadata())["request_id"]


def test_a_long_request_does_not_count(stub: GreeterStub) -> None:
    assert stub.SayHello(Text(text="x" * 4 * LIMIT), timeout=10).text.endswith("x")

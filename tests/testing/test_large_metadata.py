"""Metadata up to the limit of the options, and above it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from harness_pb2 import Number, Text
from harness_pb2_grpc import GreeterStub

import sdk.testing
from sdk import GrpcOptions
from tests.testing.harness_apps import Greeter

LIMIT = 32 << 10
# Room for the user-agent, which grpcio adds.
ROOM = 256


def call(stub: GreeterStub, size: int, application: str = "default") -> grpc.Call:
    """Make a call with so many bytes of metadata, if the application's name has seven letters."""
    size -= len("applicationdefaulttokentoken")
    metadata = (("application", application), ("token", "x" * (size // 2)), ("token", "x" * (size - size // 2)))
    made: grpc.Call = stub.SayHello.future(Text(), metadata=metadata, timeout=10)
    made.code()  # waits for its end
    return made


def code(stub: GreeterStub, size: int, application: str = "default") -> grpc.StatusCode:
    return call(stub, size, application).code()


@pytest.fixture(scope="module")
def stub() -> Iterator[GreeterStub]:
    with sdk.testing.serve(Greeter.bind(), options=GrpcOptions(max_metadata_bytes=LIMIT)) as server:
        yield GreeterStub(server.channel())


def test_metadata_at_the_limit_arrives_with_and_without_a_route(stub: GreeterStub) -> None:
    assert code(stub, LIMIT - ROOM) is grpc.StatusCode.OK
    assert code(stub, LIMIT - ROOM, "other") is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([LIMIT + 1], grpc.StatusCode.RESOURCE_EXHAUSTED),
        ([70_000], grpc.StatusCode.RESOURCE_EXHAUSTED),  # more than HTTP/2 libraries accept by default
        ([250_000], grpc.StatusCode.RESOURCE_EXHAUSTED),
        ([150_000, 150_000], grpc.StatusCode.INTERNAL),  # Envoy resets it before it recognizes gRPC
    ],
)
def test_metadata_above_the_limit_ends_only_its_own_call(
    stub: GreeterStub, sizes: list[int], expected: grpc.StatusCode
) -> None:
    running = stub.Chat(iter([Text(text="a")]))
    assert next(running).text == "A"
    counted = stub.Count(Number(number=3))
    for application in ("default", "other"):
        metadata = (("application", application), *(("token", "x" * size) for size in sizes))
        assert stub.SayHello.future(Text(), metadata=metadata, timeout=10).code() is expected
    assert [one.number for one in counted] == [0, 1, 2]
    assert code(stub, 10) is grpc.StatusCode.OK
    assert list(running) == [], "it ended with OK"


def test_one_value_may_be_as_long_as_the_limit(serving: Callable[..., Any]) -> None:
    stub = GreeterStub(serving(Greeter.bind(), options=GrpcOptions(max_metadata_bytes=96 << 10)).channel())
    assert stub.SayHello.future(Text(), metadata=[("token", "x" * 98_000)], timeout=10).code() is grpc.StatusCode.OK


def test_the_status_names_the_limit(stub: GreeterStub) -> None:
    refused = call(stub, LIMIT + 1)
    match = re.fullmatch(
        rf"the request has (\d+) bytes of metadata, more than the limit of {LIMIT} \(max_metadata_bytes\)",
        refused.details() or "",
    )
    assert match is not None
    assert LIMIT < int(match[1]) < LIMIT + ROOM
    assert dict(refused.trailing_metadata())["request_id"]


def test_a_long_request_does_not_count(stub: GreeterStub) -> None:
    assert stub.SayHello(Text(text="x" * 4 * LIMIT), timeout=10).text.endswith("x")

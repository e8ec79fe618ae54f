# mypy: enable-error-code="deprecated"
"""Types of clients, stubs, their errors and the test server. This file is checked, never run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

import grpc
import grpc.aio
from awkward_pb2 import Outer
from awkward_pb2_grpc import AwkwardStub
from awkward_sdk import AwkwardBase, AwkwardClient, AwkwardSyncClient
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]  # it has no types
from shapes.circle_pb2 import Circle
from user_defined_protos_sdk import ImageClassificationServiceSyncClient

import sdk
import sdk.testing
from sdk import Keepalive, RetryPolicy, RpcError, error_details
from sdk.client import AsyncClient, SyncClient


def fetch_token() -> str:
    return "token"


def settings() -> None:
    AwkwardClient("https://example.com", token="abc", retry=None, keepalive=None, max_message_length=-1)
    AwkwardSyncClient(
        "localhost:9000",
        credentials=grpc.ssl_channel_credentials(),
        token=fetch_token,
        retry=RetryPolicy(attempts=2, codes=(grpc.StatusCode.UNAVAILABLE,), methods="all"),
        keepalive=Keepalive(time_s=30, without_calls=True),
        options=[("grpc.lb_policy_name", "round_robin")],
    )
    AwkwardSyncClient("localhost:9000", retry=3)  # expect: arg-type reportArgumentType
    AwkwardSyncClient("localhost:9000", retry=RetryPolicy(methods="some"))  # expect: arg-type reportArgumentType
    AwkwardSyncClient("localhost:9000", token=fetch_token())
    AwkwardSyncClient("localhost:9000", token=b"abc")  # expect: arg-type reportArgumentType
    AwkwardSyncClient("localhost:9000", keepalive=30)  # expect: arg-type reportArgumentType


def blocking_calls(client: AwkwardSyncClient) -> None:
    client.wait_for_ready(timeout=1)
    assert_type(client.channel, grpc.Channel)
    assert_type(client.Unary(Outer(), wait_for_ready=True), Outer.Inner.Deepest)
    reply, call = client.Unary.with_call(Outer(), compression=grpc.Compression.Gzip)
    assert_type(reply, Outer.Inner.Deepest)
    assert_type(call.code(), grpc.StatusCode)
    stream = client.Down(Circle())
    assert_type(next(stream), Outer.Inner)
    calls: grpc.Call = stream
    assert_type(stream.code(), grpc.StatusCode)
    for inner in stream:
        assert_type(inner, Outer.Inner)
    stream.cancel()
    empty, call = client.Up.with_call([StringValue()], credentials=grpc.access_token_call_credentials("t"))
    assert_type(empty, Empty)
    other = ImageClassificationServiceSyncClient(client.channel)
    print(other, call, calls)
    client.Unary(Outer(), wait_for_ready="yes")  # expect: arg-type reportArgumentType
    client.Unary(Outer(), compression="gzip")  # expect: arg-type reportArgumentType


async def async_calls(client: AwkwardClient) -> None:
    await client.wait_for_ready()
    assert_type(client.channel, grpc.aio.Channel)
    call = client.Unary(Outer())
    assert_type(await call, Outer.Inner.Deepest)
    assert_type(await call.code(), grpc.StatusCode)
    print(await call.trailing_metadata(), await call.details())
    both = client.Both()
    await both.done_writing()


def errors(client: AwkwardSyncClient) -> None:
    try:
        client.Unary(Outer())
    except grpc.RpcError as error:
        assert_type(error_details(error), list[Message])
        failed = RpcError.from_grpc(error)
        assert_type(failed, RpcError)
        assert_type(failed.code, grpc.StatusCode)
        found: BadRequest | None = failed.find(BadRequest)
        print(found)
    error_details("text")  # expect: arg-type reportArgumentType


def plain_stubs(channel: grpc.Channel, aio_channel: grpc.aio.Channel) -> None:
    stub = AwkwardStub(channel)
    assert_type(stub.Unary(Outer(), timeout=1, metadata=(("application", "a"),)), Outer.Inner.Deepest)
    reply, call = stub.Unary.with_call(Outer())
    assert_type(reply, Outer.Inner.Deepest)
    for inner in stub.Down(Circle()):
        assert_type(inner, Outer.Inner)
    print(stub.Up(iter([StringValue()])), call.code())
    stub.Unary(Circle())  # expect: arg-type reportArgumentType


async def plain_aio_stubs(channel: grpc.aio.Channel) -> None:
    stub = AwkwardStub(channel)
    assert_type(await stub.Unary(Outer()), Outer.Inner.Deepest)
    async for inner in stub.Down(Circle()):
        assert_type(inner, Outer.Inner)
    await stub.Unary(Circle())  # expect: arg-type reportArgumentType


@sdk.grpc_deployment
class Served(AwkwardBase):
    def __init__(self, text: str) -> None:
        self.text = text


def blocking_test() -> None:
    with sdk.testing.serve(
        Served.bind("a"), other=Served("b"), options=sdk.GrpcOptions(route_by_service=True)
    ) as server:
        assert_type(server, sdk.testing.Server)
        assert_type(server.client(AwkwardSyncClient, application="other"), AwkwardSyncClient)
        assert_type(server.client(AwkwardClient), AwkwardClient)
        assert_type(server.channel(), grpc.Channel)
        assert_type(server.aio_channel(), grpc.aio.Channel)
        assert_type(server.instance(Served, application="other").text, str)
        assert_type(server.target, str)
        with server.inject(status=grpc.StatusCode.UNAVAILABLE, method=AwkwardBase.Unary, times=2) as fault:
            assert_type(fault.hits, int)
        server.inject(status="UNAVAILABLE")  # expect: arg-type reportArgumentType
        server.client(Served)  # expect: type-var reportArgumentType
        server.client("AwkwardClient")  # expect: arg-type reportArgumentType


async def async_test() -> None:
    async with sdk.testing.serve({"a": Served.bind("a")}) as server, server.client(AwkwardClient) as client:
        assert_type(await client.Unary(Outer()), Outer.Inner.Deepest)


def test_with_the_fixture(grpc_serve: Callable[..., sdk.testing.Server]) -> None:
    assert_type(grpc_serve(Served.bind("a")).client(AwkwardSyncClient), AwkwardSyncClient)


def bases(client: AsyncClient | SyncClient, **more: Any) -> None:
    print(client.channel, more)

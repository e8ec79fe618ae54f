"""Each call is counted once, with its status, its side, and its duration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._replica_protocol import CALLER_PREFACE
from sdk._wire.call_counts import CallCounts
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from sdk.errors import RpcError
from tests.support.wire_rig import SERVER, UNARY, Peer, turns

OK, CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, INTERNAL = 0, 1, 4, 5, 8, 13


async def answer(request: Int32Value) -> StringValue:
    match request.value:
        case 1:
            raise RpcError(grpc.StatusCode.NOT_FOUND, "no such")
        case 2:
            raise ValueError("wrong")
        case 3:
            await asyncio.Event().wait()
    return StringValue(value="x")


async def stream(request: Int32Value) -> AsyncIterator[StringValue]:
    yield StringValue(value="x")
    await answer(request)


def counted(server: WireServer, method: str = "Answer") -> dict[tuple[int, bool], int]:
    """Return the calls since the last time by status, and by whether another deployment made them."""
    counts = server.routes[f"/t.T/{method}".encode()].counts
    return {(found.status, found.is_inner): found.total for found in counts.take()}


async def test_every_ending_is_counted_with_its_status(serve: Any) -> None:
    server = serve(Answer=(UNARY, answer))
    for value in (0, 0, 1, 2):
        peer = Peer(server)
        peer.call("Answer", Int32Value(value=value))
        await peer.answered()
    late = Peer(server)
    late.call("Answer", Int32Value(value=3), grpc__timeout="1m")
    await late.answered()
    gone = Peer(server)
    gone.call("Answer", Int32Value(value=3))
    await turns()
    gone.connection.connection_lost(None)
    await turns()
    assert counted(server) == {
        (OK, False): 2,
        (NOT_FOUND, False): 1,
        (INTERNAL, False): 1,
        (DEADLINE_EXCEEDED, False): 1,
        (CANCELLED, False): 1,
    }
    assert counted(server) == {}


async def test_a_stream_is_one_call_with_its_last_status(serve: Any) -> None:
    server = serve(Answer=(SERVER, stream))
    for value in (0, 1):
        peer = Peer(server)
        peer.call("Answer", Int32Value(value=value))
        await peer.answered()
    assert counted(server) == {(OK, False): 1, (NOT_FOUND, False): 1}


async def test_a_call_that_finds_no_room_is_counted(serve: Any) -> None:
    server = serve(WireSettings(max_ongoing_requests=1, max_queued_requests=0), Answer=(UNARY, answer))
    busy, refused = Peer(server), Peer(server)
    busy.call("Answer", Int32Value(value=3))
    refused.call("Answer", Int32Value())
    await refused.answered()
    assert counted(server) == {(RESOURCE_EXHAUSTED, False): 1}


async def test_calls_of_other_deployments_are_counted_apart(serve: Any) -> None:
    server = serve(Answer=(UNARY, answer))
    peer = Peer(server)
    peer.connection.data_received(CALLER_PREFACE)
    peer.call("Answer", Int32Value())
    await peer.answered()
    assert counted(server) == {(OK, True): 1}


async def test_unknown_methods_share_one_count(serve: Any) -> None:
    server = serve(Answer=(UNARY, answer))
    for method in ("One", "Two"):
        peer = Peer(server)
        peer.call(method, Int32Value())
        await peer.answered()
    assert [(found.status, found.total) for found in server.host.unknown_methods.take()] == [(12, 2)]
    assert counted(server) == {}


async def test_a_connection_whose_calls_are_counted_elsewhere(serve: Any) -> None:
    server = serve(Answer=(UNARY, answer))
    peer = Peer(server)
    peer.connection.is_counted = False
    peer.call("Answer", Int32Value())
    await peer.answered()
    assert counted(server) == {}


def test_durations_fall_into_the_bucket_with_the_next_bound() -> None:
    counts = CallCounts((1, 10))
    for seconds in (0.0, 0.001, 0.0011, 0.01, 99.0):
        counts.add(OK, seconds, is_inner=False)
    (found,) = counts.take()
    assert found.buckets == (2, 2, 1)

"""Timing of a drain, in virtual time: these tests take no time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._replica_protocol import SHUTTING_DOWN
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from tests.support.virtual_time import in_virtual_time
from tests.support.wire_rig import UNARY, Peer

UNAVAILABLE = "14"


async def at_once(_: Int32Value) -> StringValue:
    return StringValue(value="hello")


async def sleep(request: Int32Value) -> StringValue:
    await asyncio.sleep(request.value)
    return StringValue()


HANDLERS = {"At": (UNARY, at_once), "Sleep": (UNARY, sleep)}


def now() -> float:
    return asyncio.get_running_loop().time()


async def trailers(peer: Peer) -> dict[str, str]:
    """Wait for the end of a response, and return its trailers."""
    while b"grpc-status" not in peer.transport.written:
        await asyncio.sleep(0.01)
    return peer.trailers()


async def call_every(server: WireServer, interval_s: float, until_s: float) -> list[Peer]:
    """Call at an interval, each time on a connection that is already open, as Envoy does."""
    peers = [Peer(server) for _ in range(round(until_s / interval_s))]
    for peer in peers:
        if server.host.closing:
            break
        peer.call("At", Int32Value())
        await asyncio.sleep(interval_s)
    return peers


@in_virtual_time
async def test_without_calls_it_ends_after_the_quiet_time(serve: Any) -> None:
    await serve(**HANDLERS).drain(quiet_s=0.1, grace_s=20)
    assert now() == pytest.approx(0.1, abs=0.01)


@in_virtual_time
async def test_it_serves_while_calls_arrive(serve: Any) -> None:
    server = serve(**HANDLERS)
    calls = asyncio.create_task(call_every(server, 0.05, until_s=1.0))
    await asyncio.sleep(0)
    draining = asyncio.create_task(server.drain(quiet_s=0.1, grace_s=20))
    while not server.host.closing:
        await asyncio.sleep(0.01)
    assert 1.0 <= now() <= 1.3
    for peer in await calls:
        assert (await trailers(peer))["grpc-status"] == "0"
    await draining


@in_virtual_time
async def test_it_waits_a_fourth_of_the_grace_for_the_last_new_call(serve: Any) -> None:
    server = serve(**HANDLERS)
    calls = asyncio.create_task(call_every(server, 0.05, until_s=60))
    await asyncio.sleep(0)
    await server.drain(quiet_s=0.1, grace_s=20)
    assert now() == pytest.approx(5, abs=0.2)
    await calls


@in_virtual_time
async def test_it_ends_with_the_last_call(serve: Any) -> None:
    server = serve(**HANDLERS)
    peer = Peer(server)
    peer.call("Sleep", Int32Value(value=7))
    await server.drain(quiet_s=0.1, grace_s=20)
    assert now() == pytest.approx(7, abs=0.1)
    assert (await trailers(peer))["grpc-status"] == "0"


@in_virtual_time
async def test_calls_that_outlive_the_grace_end_unavailable(serve: Any) -> None:
    server = serve(**HANDLERS)
    peer = Peer(server)
    peer.call("Sleep", Int32Value(value=100))
    draining = asyncio.create_task(server.drain(quiet_s=0.1, grace_s=20, linger_s=0.5))
    answer = await trailers(peer)
    assert now() == pytest.approx(20, abs=0.1)
    assert answer == {"grpc-status": UNAVAILABLE, "grpc-message": SHUTTING_DOWN, "request_id": "made"}
    await draining
    assert now() == pytest.approx(20.5, abs=0.1), "the client has half a second to read it"


@in_virtual_time
async def test_queued_calls_have_the_grace_too(serve: Any) -> None:
    server = serve(settings=WireSettings(max_ongoing_requests=1), **HANDLERS)
    first, second, third = (Peer(server) for _ in range(3))
    for peer in (first, second, third):
        peer.call("Sleep", Int32Value(value=9))
    await server.drain(quiet_s=0.1, grace_s=20)
    assert now() == pytest.approx(20, abs=0.1)
    statuses = [(await trailers(peer))["grpc-status"] for peer in (first, second, third)]
    assert statuses == ["0", "0", UNAVAILABLE]


@in_virtual_time
async def test_it_waits_for_idle_connections(serve: Any) -> None:
    server = serve(**HANDLERS)
    peer = Peer(server)
    draining = asyncio.create_task(server.drain(quiet_s=0.1, grace_s=20, idle_close_s=3))
    await asyncio.sleep(2)
    assert not server.host.closing
    peer.connection.connection_lost(None)
    await draining
    assert now() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("grace_s", "leave_s", "took_s"), [(20, 3, 3.1), (4, 3, 1.1), (0, 3, 0.1)])
@in_virtual_time
async def test_it_waits_for_idle_connections_a_fourth_of_the_grace_at_most(
    grace_s: float, leave_s: float, took_s: float, serve: Any
) -> None:
    server = serve(**HANDLERS)
    Peer(server)
    await server.drain(quiet_s=0.1, grace_s=grace_s, idle_close_s=leave_s)
    assert now() == pytest.approx(took_s, abs=0.05)

"""A draining replica serves until each of Envoy's threads has closed its idle connections."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from tests.support.wire_rig import UNARY, Peer


async def greet(_: Int32Value) -> StringValue:
    return StringValue(value="hello")


def close(peer: Peer) -> None:
    """Close a connection as Envoy does."""
    peer.transport.closed = True
    peer.connection.connection_lost(None)


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_late_call_is_served(serve: Any) -> None:
    server = serve(Greet=(UNARY, greet))
    prompt, late = Peer(server), Peer(server)
    draining = asyncio.create_task(server.drain(quiet_s=0, grace_s=60, idle_close_s=15))
    close(prompt)
    await turn()
    assert not draining.done()
    late.call("Greet", Int32Value())
    answer = await late.answer()
    assert dict(answer.trailers)["grpc-status"] == "0"
    assert ("connection", "close") not in answer.head
    await turn()
    assert not late.transport.closed, "Envoy decides when to close it"
    assert not draining.done()
    close(late)
    await asyncio.wait_for(draining, 5)


async def test_a_connection_that_stays_idle_is_closed_after_a_fourth_of_the_grace_at_most(serve: Any) -> None:
    server = serve(Greet=(UNARY, greet))
    forgotten = Peer(server)
    for idle_close_s, grace_s in ((0.02, 60), (60, 0.08)):
        await asyncio.wait_for(server.drain(quiet_s=0, grace_s=grace_s, idle_close_s=idle_close_s), 5)
        assert forgotten.transport.closed


async def test_a_busy_connection_closes_with_its_call(serve: Any) -> None:
    go = asyncio.Event()

    async def wait(_: Int32Value) -> StringValue:
        await go.wait()
        return StringValue()

    server = serve(Wait=(UNARY, wait))
    busy = Peer(server)
    busy.call("Wait", Int32Value())
    await turn()
    draining = asyncio.create_task(server.drain(quiet_s=0, grace_s=60, idle_close_s=15))
    await turn()
    assert server.host.closing
    go.set()
    assert dict((await busy.answer()).trailers)["grpc-status"] == "0"
    assert busy.transport.closed
    await asyncio.wait_for(draining, 5)

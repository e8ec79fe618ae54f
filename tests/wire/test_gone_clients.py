"""Handlers whose client is gone, and threads that outlive their call."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from test_call import SERVER, UNARY, Peer, in_loop

from sdk._wire import threads
from sdk._wire.host import WireSettings
from sdk.context import ServicerContext


def test_a_call_that_is_cancelled_before_its_handler_starts_gives_its_place_back() -> None:
    async def never(request: Int32Value) -> StringValue:
        raise AssertionError("the client was gone before")

    async def body(serve: Any) -> None:
        server = serve(Never=(UNARY, never))
        peer = Peer(server)
        peer.call("Never", Int32Value())
        peer.transport.closed = True
        peer.connection.connection_lost(None)
        await asyncio.sleep(0.01)
        assert server.host.ongoing == 0

    in_loop(body)


async def never_waits(request: Int32Value) -> AsyncIterator[StringValue]:
    while True:
        yield StringValue(value="x" * 1000)


async def never_waits_but_writes(request: Int32Value, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
    while True:
        await grpc_context.write(StringValue(value="x" * 1000))
    yield


@pytest.mark.parametrize("handler", [never_waits, never_waits_but_writes])
def test_a_handler_that_never_waits_ends_with_its_connection(handler: Any) -> None:
    async def body(serve: Any) -> None:
        server = serve(Stream=(SERVER, handler))
        peer = Peer(server)
        peer.call("Stream", Int32Value())
        peer.connection.pause_writing()
        await asyncio.sleep(0.01)
        # As uvloop does it: the transport drops what is written and frees the buffer; the loss is told a little later.
        peer.transport.closed = True
        peer.transport.write = lambda data: None  # type: ignore[method-assign]
        peer.connection.resume_writing()
        asyncio.get_running_loop().call_soon(peer.connection.connection_lost, None)
        await asyncio.sleep(0.01)
        assert server.host.ongoing == 0

    in_loop(body)


@pytest.mark.parametrize("ends_by", ["client", "deadline"])
def test_a_stream_that_swallows_its_cancellation_ends_at_its_next_message(ends_by: str) -> None:
    told: list[str] = []

    async def stubborn(request: Int32Value) -> AsyncIterator[StringValue]:
        try:
            while True:
                yield StringValue()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    told.append("cancelled")
        finally:
            await asyncio.sleep(0.01)  # its own cleanup is not cut short
            told.append("cleaned up")

    async def body(serve: Any) -> None:
        server = serve(Stream=(SERVER, stubborn))
        peer = Peer(server)
        peer.call("Stream", Int32Value(), **({"grpc__timeout": "10m"} if ends_by == "deadline" else {}))
        await asyncio.sleep(0)
        if ends_by == "client":
            peer.transport.closed = True
            peer.connection.connection_lost(None)
        else:
            assert (await peer.answered())["grpc-status"] == "4"
        while server.host.ongoing:
            await asyncio.sleep(0.005)
        assert told == ["cancelled", "cleaned up"]

    in_loop(body)


@pytest.mark.parametrize("cardinality", [UNARY, SERVER])
@pytest.mark.parametrize("returns_in_time", [True, False])
def test_a_thread_that_outlives_its_call_is_logged(
    cardinality: Any, returns_in_time: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "OVERRUN_WARNING_S", 0.05)
    go = threading.Event()

    def block(request: Int32Value) -> StringValue:
        go.wait(5)
        return StringValue()

    def stream(request: Int32Value) -> Iterator[StringValue]:
        yield block(request)

    async def body(serve: Any) -> None:
        handler = block if cardinality is UNARY else stream
        server = serve(Block=(cardinality, handler), settings=WireSettings(request_timeout_s=0.02))
        peer = Peer(server)
        peer.call("Block", Int32Value(), request_id="long")
        assert (await peer.answered())["grpc-status"] == "4"
        if returns_in_time:
            go.set()
        await asyncio.sleep(0.1)
        go.set()
        while server.host.ongoing:
            await asyncio.sleep(0.005)

    with caplog.at_level(logging.WARNING, "sdk.wire"):
        in_loop(body)
    assert [
        "/t.T/Block still runs 0.05 s after its call ended, request_id long; its thread keeps one of the 100 places "
        "(max_ongoing_requests) until it returns: a sync handler can ask grpc_context.is_active()"
    ] * (not returns_in_time) == caplog.messages

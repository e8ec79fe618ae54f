"""Handlers whose client has disconnected, and tasks and threads that outlive their call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire import idle_reaper, threads
from sdk._wire.call import CANCEL_AGAIN_S
from sdk._wire.host import WireSettings
from sdk.context import ServicerContext
from tests.support.loops import PATIENCE_S
from tests.support.virtual_time import in_virtual_time
from tests.support.wire_rig import (
    BIDI,
    CLIENT,
    SERVER,
    UNARY,
    Peer,
    turns,
    until,
    until_it_waits_for_its_client,
)


async def test_a_call_that_is_cancelled_before_its_handler_starts_is_no_longer_ongoing(serve: Any) -> None:
    async def never(request: Int32Value) -> StringValue:
        raise AssertionError("the client was gone before")

    server = serve(Never=(UNARY, never))
    peer = Peer(server)
    peer.call("Never", Int32Value())
    peer.transport.closed = True
    peer.connection.connection_lost(None)
    await turns()
    assert server.host.ongoing == 0


async def never_waits(request: Int32Value) -> AsyncIterator[StringValue]:
    while True:
        yield StringValue(value="x" * 1000)


async def never_waits_but_writes(request: Int32Value, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
    while True:
        await grpc_context.write(StringValue(value="x" * 1000))
    yield


@pytest.mark.parametrize("handler", [never_waits, never_waits_but_writes])
async def test_a_handler_that_never_waits_ends_with_its_connection(handler: Any, serve: Any) -> None:
    server = serve(Stream=(SERVER, handler))
    peer = Peer(server)
    peer.call("Stream", Int32Value())
    peer.connection.pause_writing()
    await until_it_waits_for_its_client(peer)
    # Like uvloop: the transport drops writes and frees the buffer, and reports the loss a little later.
    peer.transport.closed = True
    peer.transport.write = lambda data: None  # type: ignore[method-assign]
    peer.connection.resume_writing()
    asyncio.get_running_loop().call_soon(peer.connection.connection_lost, None)
    await turns()
    assert server.host.ongoing == 0


@pytest.mark.parametrize("ends_by", ["client", "deadline"])
async def test_a_stream_that_swallows_its_cancellation_ends_at_its_next_message(ends_by: str, serve: Any) -> None:
    events: list[str] = []

    async def stubborn(request: Int32Value) -> AsyncIterator[StringValue]:
        try:
            while True:
                yield StringValue()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    events.append("cancelled")
        finally:
            await asyncio.sleep(0.01)  # the handler's cleanup is not interrupted
            events.append("cleaned up")

    server = serve(Stream=(SERVER, stubborn))
    peer = Peer(server)
    peer.call("Stream", Int32Value(), **({"grpc__timeout": "10m"} if ends_by == "deadline" else {}))
    await asyncio.sleep(0)
    if ends_by == "client":
        peer.transport.closed = True
        peer.connection.connection_lost(None)
    else:
        assert (await peer.answered())["grpc-status"] == "4"
    await until(lambda: not server.host.ongoing)
    assert events == ["cancelled", "cleaned up"]


async def waits_once_more(request: Any) -> StringValue:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def streams_once_more(request: Any) -> AsyncIterator[StringValue]:
    yield await waits_once_more(request)


class WaitsOnceMore(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the stubs give it no type
    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        return await waits_once_more(details)


async def never_runs(request: Any) -> StringValue:
    raise AssertionError("the interceptor never calls it")


@pytest.mark.parametrize("ends_by", ["client", "client, while it drains", "deadline"])
@pytest.mark.parametrize(
    ("cardinality", "handler", "interceptors"),
    [
        (UNARY, waits_once_more, ()),
        (SERVER, streams_once_more, ()),
        (CLIENT, waits_once_more, ()),
        (BIDI, streams_once_more, ()),
        (UNARY, never_runs, (WaitsOnceMore(),)),
    ],
)
@in_virtual_time
async def test_a_handler_that_swallows_its_cancellation_is_cancelled_again(
    cardinality: Any, handler: Any, interceptors: Any, ends_by: str, caplog: pytest.LogCaptureFixture, serve: Any
) -> None:
    async def body(serve: Any) -> None:
        loop = asyncio.get_running_loop()
        server = serve(
            Wait=(cardinality, handler), interceptors=interceptors, settings=WireSettings(max_ongoing_requests=1)
        )
        first, second = Peer(server), Peer(server)
        first.call("Wait", Int32Value(), request_id="1", **({"grpc__timeout": "2S"} if ends_by == "deadline" else {}))
        second.call("Wait", Int32Value(), request_id="2")
        await turns()
        draining = asyncio.create_task(server.drain(quiet_s=0, grace_s=100)) if "drains" in ends_by else None
        await turns()
        if ends_by == "deadline":
            assert (await first.answered())["grpc-status"] == "4"
        else:
            first.transport.closed = True
            first.connection.connection_lost(None)
        began = loop.time()
        await turns()
        assert (server.host.ongoing, server.host.count_queued()) == (1, 1), "it counts as ongoing while it runs"
        await until(lambda: not server.host.count_queued())
        assert loop.time() - began == pytest.approx(CANCEL_AGAIN_S, abs=0.2)
        second.transport.closed = True
        second.connection.connection_lost(None)
        await until(lambda: not server.host.ongoing)
        assert loop.time() - began == pytest.approx(2 * CANCEL_AGAIN_S, abs=0.4)
        if draining is not None:
            await draining

    with caplog.at_level(logging.WARNING, "sdk.wire"):
        await body(serve)
    assert caplog.messages == [
        f"/t.T/Wait still runs 10 s after it was cancelled, request_id {number}; it counts as one of the 1 "
        "ongoing requests (max_ongoing_requests) until it ends, and is cancelled again: "
        "a handler must not catch asyncio.CancelledError without raising it"
        for number in (1, 2)
    ]


@in_virtual_time
async def test_a_cleanup_is_not_cancelled_at_once(serve: Any) -> None:
    cleaned: list[float] = []

    async def cleans(request: Int32Value) -> StringValue:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(CANCEL_AGAIN_S - 1)
            cleaned.append(asyncio.get_running_loop().time())
        raise AssertionError("nobody sets it")

    async def body(serve: Any) -> None:
        server = serve(Clean=(UNARY, cleans))
        peer = Peer(server)
        peer.call("Clean", Int32Value(), grpc__timeout="1S")
        assert (await peer.answered())["grpc-status"] == "4"
        await until(lambda: not server.host.ongoing)

    await body(serve)
    assert cleaned == [pytest.approx(CANCEL_AGAIN_S, abs=0.1)]


@pytest.mark.parametrize("last", ["thread", "task"])
async def test_a_call_is_ongoing_until_its_task_and_its_threads_have_ended(last: str, serve: Any) -> None:
    go, began = threading.Event(), threading.Semaphore(0)
    task_may_end = asyncio.Event()

    def block(request: Int32Value) -> StringValue:
        began.release()
        go.wait(10)
        return StringValue()

    class RetriesWhenCancelled(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the stubs give it no type
        async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
            handler = await continuation(details)

            async def twice(request: Any, context: Any) -> Any:
                with contextlib.suppress(asyncio.CancelledError):
                    return await handler.unary_unary(request, context)
                await task_may_end.wait()
                raise asyncio.CancelledError

            return grpc.unary_unary_rpc_method_handler(
                twice, request_deserializer=Int32Value.FromString, response_serializer=StringValue.SerializeToString
            )

    server = serve(
        Block=(UNARY, block), interceptors=(RetriesWhenCancelled(),), settings=WireSettings(max_ongoing_requests=2)
    )
    peer = Peer(server)
    peer.call("Block", Int32Value())
    assert await asyncio.to_thread(began.acquire, timeout=10)
    peer.transport.closed = True
    peer.connection.connection_lost(None)
    await turns()
    ends = {"thread": go.set, "task": task_may_end.set}
    end_last = ends.pop(last)
    (end_first,) = ends.values()
    end_first()
    if last == "task":
        # A pool's thread has run the callbacks of its future once it takes the next work item.
        await asyncio.gather(*(asyncio.wrap_future(server.host.executor.submit(int)) for _ in range(2)))
    await turns()
    assert server.host.ongoing == 1
    end_last()
    await until(lambda: not server.host.ongoing)


@pytest.mark.parametrize("cardinality", [UNARY, SERVER])
@pytest.mark.parametrize("returns_in_time", [True, False])
async def test_a_thread_that_outlives_its_call_is_logged(
    cardinality: Any,
    returns_in_time: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    serve: Any,
) -> None:
    monkeypatch.setattr(threads, "OVERRUN_WARNING_S", PATIENCE_S if returns_in_time else 0.05)
    began, go = threading.Event(), threading.Event()

    def block(request: Int32Value) -> StringValue:
        began.set()
        go.wait(PATIENCE_S)
        return StringValue()

    def stream(request: Int32Value) -> Iterator[StringValue]:
        yield block(request)

    async def body(serve: Any) -> None:
        handler = block if cardinality is UNARY else stream
        server = serve(Block=(cardinality, handler), settings=WireSettings(request_timeout_s=0.05))
        peer = Peer(server)
        peer.call("Block", Int32Value(), request_id="long")
        await asyncio.sleep(0)
        assert began.wait(PATIENCE_S)  # the loop is blocked: the timeout does not end the call before
        assert (await peer.answered())["grpc-status"] == "4"
        if not returns_in_time:
            await until(lambda: caplog.messages)
        go.set()
        await until(lambda: not server.host.ongoing)
        timers = server.host.loop._scheduled
        assert not [timer for timer in timers if timer._callback is threads._warn_overrun and not timer.cancelled()]

    with caplog.at_level(logging.WARNING, "sdk.wire"):
        await body(serve)
    assert [
        "/t.T/Block still runs 0.05 s after its call ended, request_id long; its thread counts as one of the 100 "
        "ongoing requests (max_ongoing_requests) until it returns: a sync handler can poll grpc_context.is_active()"
    ] * (not returns_in_time) == caplog.messages


@in_virtual_time
@pytest.mark.parametrize("kind", [UNARY, SERVER, CLIENT, BIDI])
@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_handler_is_cancelled_by_the_end_of_its_callers_socket_alone(
    kind: Any, is_slow: bool, serve: Any
) -> None:
    """The kernel closes the sockets of a killed process; no timer has to pass then."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    began = asyncio.Event()

    async def wait(requests: Any) -> StringValue:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return StringValue()

    async def stream(requests: Any) -> AsyncIterator[StringValue]:
        yield StringValue(value="first")
        yield await wait(requests)

    peer = Peer(serve(Wait=(kind, stream if kind in (SERVER, BIDI) else wait)))
    peer.head("Wait")
    peer.send(Int32Value(value=1))
    if kind in (UNARY, SERVER):
        peer.end()
    await began.wait()
    if is_slow:
        peer.connection.pause_writing()
    before = loop.time()
    peer.transport.closed = True
    peer.connection.connection_lost(None)
    await ended.wait()
    assert loop.time() == before
    # While requests are left unread, the reaper looks for the end (tests/wire/test_idle_reaper.py).
    assert idle_reaper.REAP_INTERVAL_S <= 1.0, "callers are promised a second"

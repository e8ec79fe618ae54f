"""The gRPC context while a call lives: messages, callbacks, its end, and where it can be had."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import current_context
from sdk._wire.server import WireSettings
from sdk.context import ServicerContext
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Peer, ask, turns, until_it_waits_for_its_client

OK = StringValue(value="fine")


async def writes(request: Any, grpc_context: ServicerContext) -> None:
    for text in ("a", "b"):
        await grpc_context.write(StringValue(value=text))


async def reads_and_writes(requests: Any, grpc_context: ServicerContext) -> None:
    while (message := await grpc_context.read()) is not grpc.aio.EOF:
        await grpc_context.write(StringValue(value=str(message.value)))


async def reads(requests: Any, grpc_context: ServicerContext) -> StringValue:
    first = await grpc_context.read()
    assert await grpc_context.read() is grpc.aio.EOF
    return StringValue(value=str(first.value))


async def reads_the_one_message(request: Int32Value, grpc_context: ServicerContext) -> StringValue:
    assert await grpc_context.read() is grpc.aio.EOF
    return StringValue(value=str(request.value))


@pytest.mark.parametrize(
    ("cardinality", "handler", "sent"),
    [
        (SERVER, writes, ["a", "b"]),
        (BIDI, reads_and_writes, ["7"]),
        (CLIENT, reads, ["7"]),
        (UNARY, reads_the_one_message, ["7"]),
    ],
)
async def test_messages_can_be_read_and_written_through_the_context(
    cardinality: Any, handler: Any, sent: list[str]
) -> None:
    answer = await ask(handler, cardinality)
    assert dict(answer.trailers)["grpc-status"] == "0"
    assert [StringValue.FromString(message).value for _, message in answer.messages] == sent


async def test_a_coroutine_that_returns_nothing_and_can_not_have_written_is_a_mistake() -> None:
    async def handler(request: Any) -> None:
        return None

    message = dict((await ask(handler, SERVER)).trailers)["grpc-message"]
    assert message.endswith("returned None; the proto says a stream of google.protobuf.StringValue")


async def test_write_is_for_streams() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        await grpc_context.write(OK)
        raise AssertionError

    answer = await ask(handler)
    assert "write() is for streams" in dict(answer.trailers)["grpc-message"]
    assert not answer.messages


async def test_write_after_the_end_is_an_error() -> None:
    told: list[str] = []

    async def handler(request: Any, grpc_context: ServicerContext) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(asyncio.InvalidStateError, match="after the end of the call"):
                await grpc_context.write(OK)
            told.append("yes")
            raise

    assert dict((await ask(handler, SERVER, grpc__timeout="10m")).trailers)["grpc-status"] == "4"
    assert told


async def test_a_slow_client_stops_writes(serve: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> None:
        for _ in range(10_000):
            await grpc_context.write(OK)

    peer = Peer(serve(Get=(SERVER, handler)))
    peer.call("Get", Int32Value())
    peer.connection.pause_writing()
    await until_it_waits_for_its_client(peer)
    size = len(peer.transport.written)
    await turns()
    assert len(peer.transport.written) == size < 1000
    peer.connection.resume_writing()
    assert len((await peer.answer()).messages) == 10_000


async def cancels_async(request: Any, grpc_context: ServicerContext) -> StringValue:
    grpc_context.cancel()
    grpc_context.cancel()
    assert (grpc_context.cancelled(), grpc_context.done(), grpc_context.is_active()) == (True, True, False)
    await asyncio.Event().wait()
    raise AssertionError


def cancels_sync(request: Any, grpc_context: ServicerContext) -> StringValue:
    assert (grpc_context.cancelled(), grpc_context.done(), grpc_context.is_active()) == (False, False, True)
    grpc_context.cancel()
    assert (grpc_context.cancelled(), grpc_context.done(), grpc_context.is_active()) == (True, True, False)
    return OK


@pytest.mark.parametrize("handler", [cancels_async, cancels_sync])
async def test_a_handler_can_cancel_its_call(handler: Any) -> None:
    answer = await ask(handler)
    assert not answer.messages
    assert answer.trailers == [
        ("grpc-status", "1"),
        ("grpc-message", "the handler cancelled the call"),
        ("request_id", "made"),
    ]


@pytest.mark.parametrize("is_sync", [True, False])
async def test_callbacks_at_the_end(is_sync: bool, serve: Any) -> None:
    called: list[tuple[str, int]] = []
    all_called = threading.Event()
    contexts: list[ServicerContext] = []

    def called_back(what: str) -> None:
        assert contexts[0].done()
        called.append((what, threading.get_ident()))
        if len(called) == 2:
            all_called.set()

    def add(context: ServicerContext) -> StringValue:
        contexts.append(context)
        assert context.add_callback(lambda: called_back("plain")) is True
        context.add_done_callback(lambda given: called_back("done" if given is context else "wrong"))
        assert not called
        return OK

    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        return add(grpc_context)

    def sync_handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        return add(grpc_context)

    peer = Peer(serve(Get=(UNARY, sync_handler if is_sync else handler)))
    peer.call("Get", Int32Value())
    await peer.answered()
    assert await asyncio.to_thread(all_called.wait, 10)
    assert {what for what, _ in called} == {"plain", "done"}
    here = threading.get_ident()
    assert {thread == here for _, thread in called} == {not is_sync}
    assert contexts[0].add_callback(lambda: called_back("late")) is False
    contexts[0].add_done_callback(lambda _: called_back("late, but called"))
    assert [what for what, _ in called[2:]] == ["late, but called"]


async def test_a_thread_learns_from_a_callback_that_the_client_is_gone(serve: Any) -> None:
    began, ended = threading.Event(), threading.Event()

    def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        gone = threading.Event()
        assert grpc_context.add_callback(gone.set)
        began.set()
        assert gone.wait(10)
        assert grpc_context.cancelled()
        ended.set()
        return OK

    # All places are taken by a handler that waits for its callback: it must not need one of them.
    peer = Peer(serve(settings=WireSettings(max_ongoing_requests=1), Get=(UNARY, handler)))
    peer.call("Get", Int32Value())
    assert await asyncio.to_thread(began.wait, 10)
    peer.transport.closed = True
    peer.connection.connection_lost(None)
    assert await asyncio.to_thread(ended.wait, 10)


async def current_async(request: Any) -> StringValue:
    return StringValue(value=current_context().request_id())


def current_sync(request: Any) -> StringValue:
    return StringValue(value=current_context().request_id())


async def current_in_a_task(request: Any) -> StringValue:
    async def inner() -> str:
        await asyncio.sleep(0)
        return current_context().request_id()

    return StringValue(value=await asyncio.create_task(inner()))


async def current_in_a_thread(request: Any) -> StringValue:
    return StringValue(value=await asyncio.to_thread(lambda: current_context().request_id()))


async def current_in_a_stream(request: Any) -> AsyncIterator[StringValue]:
    await asyncio.sleep(0)
    yield StringValue(value=current_context().request_id())


def current_in_a_sync_stream(request: Any) -> Iterator[StringValue]:
    yield StringValue(value=current_context().request_id())


async def current_writes(request: Any) -> None:
    await current_context().write(StringValue(value=current_context().request_id()))


@pytest.mark.parametrize(
    ("cardinality", "handler"),
    [
        (UNARY, current_async),
        (UNARY, current_sync),
        (UNARY, current_in_a_task),
        (UNARY, current_in_a_thread),
        (SERVER, current_in_a_stream),
        (SERVER, current_in_a_sync_stream),
        (SERVER, current_writes),
    ],
)
async def test_the_current_context_is_the_calls_own_everywhere(cardinality: Any, handler: Any, serve: Any) -> None:
    server = serve(Get=(cardinality, handler))
    peers = [Peer(server) for _ in range(5)]
    for number, peer in enumerate(peers):
        peer.call("Get", Int32Value(), request_id=str(number))
    for number, peer in enumerate(peers):
        answer = await peer.answer()
        assert [StringValue.FromString(message).value for _, message in answer.messages] == [str(number)]


async def test_the_argument_and_the_current_context_are_the_same() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        assert current_context() is grpc_context
        return OK

    assert dict((await ask(handler)).trailers)["grpc-status"] == "0"


def test_there_is_no_current_context_outside_a_call() -> None:
    with pytest.raises(RuntimeError, match="no current gRPC call"):
        current_context()

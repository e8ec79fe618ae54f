"""Messages that a stream sends between two waits are one chunk, and none is late or out of order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire import steps as steps_module
from sdk._wire.frames import LARGE
from sdk._wire.steps import Steps
from sdk.context import ServicerContext
from tests.support.wire_rig import SERVER, Peer, parse_answer, turns


class Clock:
    """The time that the messages see: the machine's load must not divide them."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(steps_module, "monotonic", clock)
    return clock


def texts(peer: Peer) -> list[str]:
    return [StringValue.FromString(data).value for _, data in parse_answer(peer.transport.written).messages]


async def several(request: Int32Value) -> AsyncIterator[StringValue]:
    for number in range(request.value):
        yield StringValue(value=str(number))


async def several_by_write(request: Int32Value, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
    for number in range(request.value):
        await grpc_context.write(StringValue(value=str(number)))
    return
    yield StringValue()


@pytest.mark.parametrize("handler", [several, several_by_write])
async def test_messages_between_two_waits_are_one_chunk(handler: Any, serve: Any) -> None:
    peer = Peer(serve(Get=(SERVER, handler)))
    peer.call("Get", Int32Value(value=50))
    await peer.answered()
    assert texts(peer) == [str(number) for number in range(50)]
    assert peer.transport.written.count(b"\r\n\x00\x00") == 2  # the first message goes with the head


async def test_no_message_waits_for_the_computation_of_the_next(clock: Clock, serve: Any) -> None:
    seen = []

    async def computing(request: Int32Value) -> AsyncIterator[StringValue]:
        for number in range(5):
            clock.now += 0.02
            yield StringValue(value=str(number))
            seen.append(peer.transport.written.count(b"\x00\x00\x00\x00\x03\n\x01"))

    peer = Peer(serve(Get=(SERVER, computing)))
    peer.call("Get", Int32Value())
    await peer.answered()
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("numbers", [1, 2, 3])
async def test_nothing_is_held_while_the_handler_waits(numbers: int, serve: Any) -> None:
    may_continue = asyncio.Event()

    async def pausing(request: Int32Value) -> AsyncIterator[StringValue]:
        for number in range(numbers):
            yield StringValue(value=str(number))
        await may_continue.wait()
        yield StringValue(value="last")

    peer = Peer(serve(Get=(SERVER, pausing)))
    peer.call("Get", Int32Value())
    await turns()
    assert peer.transport.written.count(b"\x00\x00\x00\x00\x03\n\x01") == numbers
    may_continue.set()
    await peer.answered()
    assert texts(peer)[-1] == "last"


async def test_long_messages_keep_their_place(serve: Any) -> None:
    async def mixed(request: Int32Value) -> AsyncIterator[StringValue]:
        for length in 1, 2, LARGE, 3, LARGE, LARGE, 4, 5:
            yield StringValue(value="x" * length)

    peer = Peer(serve(Get=(SERVER, mixed)))
    peer.call("Get", Int32Value())
    await peer.answered()
    assert [len(text) for text in texts(peer)] == [1, 2, LARGE, 3, LARGE, LARGE, 4, 5]


async def test_messages_before_an_error_arrive_before_it(serve: Any) -> None:
    async def failing(request: Int32Value) -> AsyncIterator[StringValue]:
        for text in "abc":
            yield StringValue(value=text)
        raise ValueError("wrong")

    peer = Peer(serve(Get=(SERVER, failing)))
    peer.call("Get", Int32Value())
    assert (await peer.answered())["grpc-status"] == "13"
    assert texts(peer) == ["a", "b", "c"]


async def test_messages_of_another_task_of_the_handler_are_not_held(serve: Any) -> None:
    is_over = asyncio.Event()

    async def by_task(request: Int32Value, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
        async def write() -> None:
            for text in "bc":
                await grpc_context.write(StringValue(value=text))

        yield StringValue(value="a")
        task = asyncio.create_task(write())
        await is_over.wait()
        await task

    peer = Peer(serve(Get=(SERVER, by_task)))
    peer.call("Get", Int32Value())
    await turns()
    assert peer.transport.written.count(b"\x00\x00\x00\x00\x03\n\x01") == 3
    is_over.set()
    await peer.answered()
    assert texts(peer) == ["a", "b", "c"]


async def test_a_client_that_leaves_gets_nothing_more(serve: Any) -> None:
    async def leaving(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue(value="a")
        yield StringValue(value="b")
        peer.transport.closed = True
        peer.connection.connection_lost(None)
        yield StringValue(value="c")

    server = serve(Get=(SERVER, leaving))
    peer = Peer(server)
    peer.call("Get", Int32Value())
    await turns()
    assert server.host.ongoing == 0
    assert b"\n\x01b" not in peer.transport.written


def test_a_chunk_is_written_before_it_is_too_long() -> None:
    chunks: list[int] = []

    async def send() -> None:
        for _ in range(1000):
            steps.add(0, 1, b"x")

    steps = Steps(send(), lambda chunk, burst, messages: chunks.append(burst))
    with pytest.raises(StopIteration):
        steps.send(None)
    assert sum(chunks) == 1000 * 1025
    assert max(chunks) <= (1 << 16) + 1025


def test_what_was_added_is_written_if_the_step_raises() -> None:
    chunks: list[bytes] = []

    async def send() -> None:
        steps.add(0, 1, b"x")
        try:
            await asyncio.sleep(0)
        finally:
            steps.add(0, 1, b"y")

    steps = Steps(send(), lambda chunk, burst, messages: chunks.append(chunk))
    steps.send(None)
    assert len(chunks) == 1
    with pytest.raises(asyncio.CancelledError):
        steps.throw(asyncio.CancelledError())
    assert chunks[1] == b"6\r\n\x00\x00\x00\x00\x01y\r\n"

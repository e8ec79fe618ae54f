"""What is kept of each answer for the case that the replica is killed: when it can be ended, and how."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from wire_rig import FakeTransport, Peer, in_loop

from sdk.service import Cardinality
from sdk.wire.endings import Ending, Endings, ending
from sdk.wire.survivor import GOODBYE, PACKET, RECORD, SLOT


class Given:
    """What the process that survives would have been given."""

    def __init__(self) -> None:
        self.packets: list[tuple[int, int]] = []
        self.refuses: OSError | None = None

    def __call__(self, packet: bytes, connections: list[int]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.packets.append((PACKET.unpack(packet)[0], len(connections)))


class Rig:
    def __init__(self, slots: int = 4) -> None:
        self.memory = bytearray(slots * SLOT)
        self.given = Given()
        self.endings = Endings(asyncio.get_running_loop(), self.given, self.memory)

    def said(self, slot: int = 0) -> bytes | None:
        """What would be said on a connection were the replica killed now."""
        may_end, length = RECORD.unpack_from(self.memory, slot * SLOT)
        begin = slot * SLOT + RECORD.size
        return bytes(self.memory[begin : begin + length]) if may_end else None

    def begin(self, transport: FakeTransport, request_id: bytes = b"7") -> Ending:
        begun = self.endings.begin(transport, request_id)
        assert begun is not None
        return begun


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


async def turn() -> None:
    """Let the loop go round once."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@on_loop
async def test_nothing_is_said_before_the_kernel_has_what_was_written() -> None:
    rig, transport = Rig(), FakeTransport()
    begun = rig.begin(transport)
    assert rig.said() is None
    await turn()
    assert rig.said() == ending(b"7")
    begun.hold()
    assert rig.said() is None
    await turn()
    assert rig.said() == ending(b"7")


@on_loop
async def test_a_slow_client_is_looked_at_again() -> None:
    rig, transport = Rig(), FakeTransport()
    transport.unsent = 1
    rig.begin(transport)
    await turn()
    assert rig.said() is None
    transport.unsent = 0
    for _ in range(100):
        await asyncio.sleep(0.01)
        if rig.said() is not None:
            return
    pytest.fail("it was not looked at again")


@on_loop
async def test_an_answer_that_ended_is_not_ended_again() -> None:
    rig, transport = Rig(), FakeTransport()
    begun = rig.begin(transport)
    begun.drop()
    await turn()
    assert rig.said() is None


@on_loop
async def test_a_connection_is_given_once_and_told_when_it_is_closed() -> None:
    rig, transport = Rig(), FakeTransport()
    rig.begin(transport).drop()
    rig.begin(transport, b"8")
    await turn()
    assert rig.said() == ending(b"8")
    rig.endings.forget(transport)
    rig.endings.forget(transport)
    rig.begin(FakeTransport(), b"9")
    assert rig.given.packets == [(0, 1), (0, 0), (0, 1)]
    rig.endings.forget(FakeTransport())  # one that was never given
    assert len(rig.given.packets) == 3


@on_loop
async def test_without_room_an_answer_goes_without() -> None:
    rig = Rig(slots=1)
    rig.begin(FakeTransport())
    assert rig.endings.begin(FakeTransport(), b"8") is None
    rig = Rig()
    rig.given.refuses = BlockingIOError()
    transport = FakeTransport()
    assert rig.endings.begin(transport, b"8") is None
    rig.given.refuses = None
    rig.begin(transport)
    assert rig.given.packets == [(0, 1)], "the slot was not lost"


@on_loop
async def test_a_closed_connection_is_told_later_when_there_is_no_room_now() -> None:
    rig, first, second = Rig(), FakeTransport(), FakeTransport()
    rig.begin(first).drop()
    rig.given.refuses = BlockingIOError()
    rig.endings.forget(first)
    rig.given.refuses = None
    rig.begin(second)
    assert rig.given.packets == [(0, 1), (1, 1)], "its slot is not another's before the other process knows"
    for _ in range(100):
        await asyncio.sleep(0.01)
        if (0, 0) in rig.given.packets:
            return
    pytest.fail("it was not told")


@on_loop
async def test_without_the_other_process_slots_are_used_again() -> None:
    rig, transport = Rig(slots=1), FakeTransport()
    rig.begin(transport).drop()
    rig.given.refuses = BrokenPipeError()
    rig.endings.forget(transport)
    rig.given.refuses = None
    rig.begin(FakeTransport())


@on_loop
async def test_goodbye() -> None:
    rig = Rig()
    rig.endings.close()
    assert rig.given.packets == [(GOODBYE, 0)]
    assert rig.endings.begin(FakeTransport(), b"7") is None


def test_a_request_id_that_is_too_long_is_left_out() -> None:
    assert len(ending(b"x" * SLOT)) <= SLOT - RECORD.size
    assert b"request_id" not in ending(b"x" * SLOT)
    assert ending(b"x" * SLOT).startswith(b"0\r\ngrpc-status: 14\r\n")


# -- in the life of a call ----------------------------------------------------------------------


async def serve_with_endings(serve: Any, **handlers: Any) -> tuple[Peer, Rig]:
    server = serve(**handlers)
    rig = Rig()
    server.endings = rig.endings
    return Peer(server), rig


def test_a_stream_keeps_its_ending_from_its_first_message_to_its_last() -> None:
    go_on = SimpleNamespace()

    async def handler(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue(value="one")
        await go_on.event.wait()

    async def scenario(serve: Any) -> None:
        go_on.event = asyncio.Event()
        peer, rig = await serve_with_endings(serve, out=(Cardinality.UNARY_STREAM, handler))
        peer.call("out", Int32Value())
        assert rig.said() is None
        while b"one" not in peer.transport.written:
            await turn()
        await turn()
        assert rig.said() == ending(b"made")
        go_on.event.set()
        await peer.answered()
        await turn()
        assert rig.said() is None

    in_loop(scenario)


def test_what_is_written_at_once_keeps_none() -> None:
    async def plain(request: Int32Value) -> StringValue:
        return StringValue(value="x")

    async def with_trailers(request: Int32Value, grpc_context: Any) -> StringValue:
        grpc_context.set_trailing_metadata((("a", "b"),))
        return StringValue(value="x" * 100_000)

    async def scenario(serve: Any) -> None:
        peer, rig = await serve_with_endings(
            serve, plain=(Cardinality.UNARY_UNARY, plain), trailers=(Cardinality.UNARY_UNARY, with_trailers)
        )
        for method in ("plain", "trailers"):
            peer.transport.chunks.clear()
            peer.call(method, Int32Value())
            await peer.answered()
        assert rig.given.packets == []

    in_loop(scenario)


def test_a_unary_answer_with_early_metadata_keeps_one() -> None:
    go_on = SimpleNamespace()

    async def early(request: Int32Value, grpc_context: Any) -> StringValue:
        await grpc_context.send_initial_metadata((("a", "b"),))
        await go_on.event.wait()
        return StringValue(value="x")

    async def scenario(serve: Any) -> None:
        go_on.event = asyncio.Event()
        peer, rig = await serve_with_endings(serve, early=(Cardinality.UNARY_UNARY, early))
        peer.call("early", Int32Value())
        for _ in range(5):
            await turn()
        assert rig.said() == ending(b"made")
        go_on.event.set()
        assert (await peer.answered())["grpc-status"] == "0"
        await turn()
        assert rig.said() is None

    in_loop(scenario)


def test_a_client_that_is_gone_leaves_none() -> None:
    async def handler(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue(value="one")
        await asyncio.Event().wait()

    async def scenario(serve: Any) -> None:
        peer, rig = await serve_with_endings(serve, out=(Cardinality.UNARY_STREAM, handler))
        peer.call("out", Int32Value())
        for _ in range(5):
            await turn()
        assert rig.said() == ending(b"made")
        peer.connection.connection_lost(None)
        await turn()
        assert rig.said() is None
        assert rig.given.packets == [(0, 1), (0, 0)]

    in_loop(scenario)

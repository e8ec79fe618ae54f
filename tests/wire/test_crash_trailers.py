"""What is kept of each answer for the case that the replica is killed: when it can be ended, and how."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire.crash_trailers import Ending, Endings, ending
from sdk._wire.crash_trailers_process import GOODBYE, PACKET, RECORD, SLOT
from sdk.service import Cardinality
from tests.support.virtual_time import in_virtual_time
from tests.support.wire_rig import FakeTransport, Peer

LONG = (32 << 10) + 1


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

    async def begin(self, transport: FakeTransport, request_id: bytes = b"7") -> Ending:
        """Begin an answer, and return when it has lasted long enough."""
        begun = self.endings.begin(transport, request_id)
        assert begun is not None
        await a_look()
        return begun


async def a_look() -> None:
    """Return after the next look at what goes on; the time of these tests is not the clock's."""
    await asyncio.sleep(0.11)


async def turn() -> None:
    """Let the loop go round once."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@in_virtual_time
async def test_an_answer_that_ends_at_once_costs_nothing() -> None:
    rig = Rig()
    begun = rig.endings.begin(FakeTransport(), b"7")
    assert begun is not None
    begun.write(LONG)
    begun.finish(1)
    await a_look()
    assert rig.given.packets == []


@in_virtual_time
async def test_nothing_is_said_before_the_kernel_has_what_it_may_take_in_parts() -> None:
    rig, transport = Rig(), FakeTransport()
    begun = await rig.begin(transport)
    assert rig.said() == ending(b"7")
    begun.write(LONG)
    assert rig.said() is None
    await turn()
    assert rig.said() == ending(b"7")


@in_virtual_time
async def test_what_the_kernel_takes_whole_or_not_at_all_changes_nothing() -> None:
    rig, transport = Rig(), FakeTransport()
    begun = await rig.begin(transport)
    begun.write(1000)
    assert rig.said() == ending(b"7")
    transport.unsent = LONG - 999
    begun.write(1000)
    assert rig.said() is None, "together they are too long"


@in_virtual_time
async def test_tcp_takes_everything_in_parts() -> None:
    rig, transport = Rig(), FakeTransport()
    transport.family = socket.AF_INET
    begun = await rig.begin(transport)
    assert rig.said() == ending(b"7")
    begun.write(1)
    assert rig.said() is None
    await turn()
    assert rig.said() == ending(b"7")
    begun.finish(1)
    assert rig.said() is None


@in_virtual_time
async def test_an_answer_can_be_ended_until_the_kernel_has_its_own_end() -> None:
    rig, transport = Rig(), FakeTransport()
    begun = await rig.begin(transport)
    transport.unsent = 100
    begun.finish(100)
    assert rig.said() == ending(b"7")
    await a_look()
    assert rig.said() == ending(b"7"), "the client is slow"
    assert rig.given.packets == [(0, 1)]
    transport.unsent = 0
    await a_look()
    assert rig.said() is None
    assert rig.given.packets == [(0, 1), (0, 0)]


@in_virtual_time
async def test_a_connection_that_closes_is_taken_back_at_once() -> None:
    rig, transport = Rig(), FakeTransport()
    begun = await rig.begin(transport)
    transport.unsent = 100
    begun.finish(100)
    transport.close()
    await turn()
    assert rig.given.packets == [(0, 1), (0, 0)]


@in_virtual_time
async def test_a_slow_client_is_looked_at_again() -> None:
    rig, transport = Rig(), FakeTransport()
    transport.unsent = LONG
    begun = await rig.begin(transport)
    await a_look()
    assert rig.said() is None
    transport.unsent = 0
    await a_look()
    await turn()
    assert rig.said() == ending(b"7")
    begun.drop()


@in_virtual_time
async def test_a_connection_is_given_for_one_answer_only() -> None:
    rig, transport = Rig(), FakeTransport()
    begun = await rig.begin(transport)
    begun.drop()
    assert rig.said() is None
    await rig.begin(transport, b"8")
    assert rig.said() == ending(b"8")
    assert rig.given.packets == [(0, 1), (0, 0), (0, 1)]


@in_virtual_time
async def test_an_answer_that_ends_in_the_turn_in_which_it_is_held_is_not_ended_again() -> None:
    rig = Rig()
    begun = await rig.begin(FakeTransport())
    begun.write(LONG)
    begun.finish(1)
    await turn()
    assert rig.said() is None
    assert rig.given.packets == [(0, 1), (0, 0)]


@in_virtual_time
async def test_without_room_an_answer_waits_for_some() -> None:
    rig = Rig(slots=1)
    first = await rig.begin(FakeTransport())
    await rig.begin(FakeTransport(), b"8")
    assert rig.given.packets == [(0, 1)]
    first.drop()
    await a_look()
    assert rig.said() == ending(b"8")
    rig = Rig()
    rig.given.refuses = BlockingIOError()
    await rig.begin(FakeTransport())
    assert rig.said() is None
    rig.given.refuses = None
    await a_look()
    assert rig.said() == ending(b"7")
    assert rig.given.packets == [(0, 1)], "the slot was not lost"


@in_virtual_time
async def test_the_end_of_an_answer_is_told_later_when_there_is_no_room_now() -> None:
    rig = Rig()
    begun = await rig.begin(FakeTransport())
    rig.given.refuses = BlockingIOError()
    begun.drop()
    assert rig.said() is None
    rig.given.refuses = None
    await rig.begin(FakeTransport())
    assert rig.given.packets == [(0, 1), (0, 0), (0, 1)], "its slot is another's once the other process knows"


@in_virtual_time
async def test_without_the_other_process_slots_are_used_again() -> None:
    rig = Rig(slots=1)
    begun = await rig.begin(FakeTransport())
    rig.given.refuses = BrokenPipeError()
    begun.drop()
    rig.given.refuses = None
    await rig.begin(FakeTransport(), b"8")
    assert rig.said() == ending(b"8")


@in_virtual_time
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


@in_virtual_time
async def test_a_stream_keeps_its_ending_from_its_first_message_to_its_last(serve: Any) -> None:
    go_on = SimpleNamespace()

    async def handler(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue(value="one")
        await go_on.event.wait()

    go_on.event = asyncio.Event()
    peer, rig = await serve_with_endings(serve, out=(Cardinality.UNARY_STREAM, handler))
    peer.call("out", Int32Value())
    assert rig.said() is None
    await a_look()
    assert b"one" in peer.transport.written
    assert rig.said() == ending(b"made")
    go_on.event.set()
    await peer.answered()
    await turn()
    assert rig.said() is None


@in_virtual_time
async def test_what_is_written_at_once_keeps_none(serve: Any) -> None:
    async def plain(request: Int32Value) -> StringValue:
        return StringValue(value="x")

    async def with_trailers(request: Int32Value, grpc_context: Any) -> StringValue:
        grpc_context.set_trailing_metadata((("a", "b"),))
        return StringValue(value="x" * 100_000)

    peer, rig = await serve_with_endings(
        serve, plain=(Cardinality.UNARY_UNARY, plain), trailers=(Cardinality.UNARY_UNARY, with_trailers)
    )
    for method in ("plain", "trailers"):
        peer.transport.chunks.clear()
        peer.call(method, Int32Value())
        await peer.answered()
    await a_look()
    assert rig.given.packets == []


@in_virtual_time
async def test_a_unary_answer_with_early_metadata_keeps_one(serve: Any) -> None:
    go_on = SimpleNamespace()

    async def early(request: Int32Value, grpc_context: Any) -> StringValue:
        await grpc_context.send_initial_metadata((("a", "b"),))
        await go_on.event.wait()
        return StringValue(value="x")

    go_on.event = asyncio.Event()
    peer, rig = await serve_with_endings(serve, early=(Cardinality.UNARY_UNARY, early))
    peer.call("early", Int32Value())
    await a_look()
    assert rig.said() == ending(b"made")
    go_on.event.set()
    assert (await peer.answered())["grpc-status"] == "0"
    await turn()
    assert rig.said() is None


@in_virtual_time
async def test_a_client_that_is_gone_leaves_none(serve: Any) -> None:
    async def handler(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue(value="one")
        await asyncio.Event().wait()

    peer, rig = await serve_with_endings(serve, out=(Cardinality.UNARY_STREAM, handler))
    peer.call("out", Int32Value())
    await a_look()
    assert rig.said() == ending(b"made")
    peer.connection.connection_lost(None)
    await turn()
    assert rig.said() is None
    assert rig.given.packets == [(0, 1), (0, 0)]

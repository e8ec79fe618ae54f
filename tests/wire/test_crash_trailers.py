"""Crash trailers of a replica's streams: when they may be sent, and their text."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire.crash_trailers import CrashTrailers, StreamGuard, encode_trailers
from sdk._wire.crash_trailers_process import PACKET, RECORD, SHUTDOWN, SLOT
from sdk.service import Cardinality
from tests.support.virtual_time import in_virtual_time
from tests.support.wire_rig import FakeTransport, Peer

LONG = (32 << 10) + 1


class Sent:
    """The packets that the other process would have received."""

    def __init__(self) -> None:
        self.packets: list[tuple[int, int]] = []
        self.raises: OSError | None = None

    def __call__(self, packet: bytes, connections: list[int]) -> None:
        if self.raises is not None:
            raise self.raises
        self.packets.append((PACKET.unpack(packet)[0], len(connections)))


class Rig:
    def __init__(self, slots: int = 4) -> None:
        self.memory = bytearray(slots * SLOT)
        self.sent = Sent()
        self.crash_trailers = CrashTrailers(asyncio.get_running_loop(), self.sent, self.memory)

    def trailers(self, slot: int = 0) -> bytes | None:
        """Return the trailers that a connection would get if the replica were killed now."""
        may_end, length = RECORD.unpack_from(self.memory, slot * SLOT)
        begin = slot * SLOT + RECORD.size
        return bytes(self.memory[begin : begin + length]) if may_end else None

    async def guard(self, transport: FakeTransport, request_id: bytes = b"7") -> StreamGuard:
        """Guard a response, and return when it has lasted long enough."""
        guard = self.crash_trailers.guard(transport, request_id)
        assert guard is not None
        await next_check()
        return guard


async def next_check() -> None:
    """Return after the next check; the time of these tests is virtual."""
    await asyncio.sleep(0.11)


async def turn() -> None:
    """Return after one turn of the loop."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@in_virtual_time
async def test_a_short_response_costs_nothing() -> None:
    rig = Rig()
    guard = rig.crash_trailers.guard(FakeTransport(), b"7")
    assert guard is not None
    guard.before_write(LONG)
    guard.before_end(1)
    await next_check()
    assert rig.sent.packets == []


@in_virtual_time
async def test_a_response_is_guarded_after_five_milliseconds() -> None:
    rig = Rig()
    assert rig.crash_trailers.guard(FakeTransport(), b"7") is not None
    await asyncio.sleep(0.004)
    assert rig.trailers() is None
    assert rig.crash_trailers.guard(FakeTransport(), b"8") is not None
    await asyncio.sleep(0.002)
    assert (rig.trailers(), rig.trailers(1)) == (encode_trailers(b"7"), encode_trailers(b"8")), "together"


@in_virtual_time
async def test_a_long_write_withholds_the_trailers_until_the_kernel_has_it() -> None:
    rig, transport = Rig(), FakeTransport()
    guard = await rig.guard(transport)
    assert rig.trailers() == encode_trailers(b"7")
    guard.before_write(LONG)
    assert rig.trailers() is None
    await turn()
    assert rig.trailers() == encode_trailers(b"7")


@in_virtual_time
async def test_an_atomic_write_does_not_withhold_the_trailers() -> None:
    rig, transport = Rig(), FakeTransport()
    guard = await rig.guard(transport)
    guard.before_write(1000)
    assert rig.trailers() == encode_trailers(b"7")
    transport.unsent = LONG - 999
    guard.before_write(1000)
    assert rig.trailers() is None, "together they are too long"


@in_virtual_time
async def test_no_write_to_tcp_is_atomic() -> None:
    rig, transport = Rig(), FakeTransport()
    transport.family = socket.AF_INET
    guard = await rig.guard(transport)
    assert rig.trailers() == encode_trailers(b"7")
    guard.before_write(1)
    assert rig.trailers() is None
    await turn()
    assert rig.trailers() == encode_trailers(b"7")
    guard.before_end(1)
    assert rig.trailers() is None


@in_virtual_time
async def test_the_trailers_stay_until_the_kernel_has_the_real_ones() -> None:
    rig, transport = Rig(), FakeTransport()
    guard = await rig.guard(transport)
    transport.unsent = 100
    guard.before_end(100)
    assert rig.trailers() == encode_trailers(b"7")
    await next_check()
    assert rig.trailers() == encode_trailers(b"7"), "the client is slow"
    assert rig.sent.packets == [(0, 1)]
    transport.unsent = 0
    await next_check()
    assert rig.trailers() is None
    assert rig.sent.packets == [(0, 1), (0, 0)]


@in_virtual_time
async def test_a_closing_connection_is_taken_back_at_once() -> None:
    rig, transport = Rig(), FakeTransport()
    guard = await rig.guard(transport)
    transport.unsent = 100
    guard.before_end(100)
    transport.close()
    await turn()
    assert rig.sent.packets == [(0, 1), (0, 0)]


@in_virtual_time
async def test_a_slow_client_is_checked_again() -> None:
    rig, transport = Rig(), FakeTransport()
    transport.unsent = LONG
    guard = await rig.guard(transport)
    await next_check()
    assert rig.trailers() is None
    transport.unsent = 0
    await next_check()
    await turn()
    assert rig.trailers() == encode_trailers(b"7")
    guard.drop()


@in_virtual_time
async def test_a_connection_is_passed_for_one_response_only() -> None:
    rig, transport = Rig(), FakeTransport()
    guard = await rig.guard(transport)
    guard.drop()
    assert rig.trailers() is None
    await rig.guard(transport, b"8")
    assert rig.trailers() == encode_trailers(b"8")
    assert rig.sent.packets == [(0, 1), (0, 0), (0, 1)]


@in_virtual_time
async def test_a_response_that_ends_while_its_trailers_are_withheld_is_taken_back_once() -> None:
    rig = Rig()
    guard = await rig.guard(FakeTransport())
    guard.before_write(LONG)
    guard.before_end(1)
    await turn()
    assert rig.trailers() is None
    assert rig.sent.packets == [(0, 1), (0, 0)]


@in_virtual_time
async def test_without_room_a_response_waits_for_some() -> None:
    rig = Rig(slots=1)
    first = await rig.guard(FakeTransport())
    await rig.guard(FakeTransport(), b"8")
    assert rig.sent.packets == [(0, 1)]
    first.drop()
    await next_check()
    assert rig.trailers() == encode_trailers(b"8")
    rig = Rig()
    rig.sent.raises = BlockingIOError()
    await rig.guard(FakeTransport())
    assert rig.trailers() is None
    rig.sent.raises = None
    await next_check()
    assert rig.trailers() == encode_trailers(b"7")
    assert rig.sent.packets == [(0, 1)], "the slot was not lost"


@in_virtual_time
async def test_the_end_of_a_response_is_sent_later_if_there_is_no_room_now() -> None:
    rig = Rig()
    guard = await rig.guard(FakeTransport())
    rig.sent.raises = BlockingIOError()
    guard.drop()
    assert rig.trailers() is None
    rig.sent.raises = None
    await rig.guard(FakeTransport())
    assert rig.sent.packets == [(0, 1), (0, 0), (0, 1)], "the slot is reused once the other process has closed its copy"


@in_virtual_time
async def test_slots_are_reused_without_the_other_process() -> None:
    rig = Rig(slots=1)
    guard = await rig.guard(FakeTransport())
    rig.sent.raises = BrokenPipeError()
    guard.drop()
    rig.sent.raises = None
    await rig.guard(FakeTransport(), b"8")
    assert rig.trailers() == encode_trailers(b"8")


@in_virtual_time
async def test_shutdown() -> None:
    rig = Rig()
    rig.crash_trailers.close()
    assert rig.sent.packets == [(SHUTDOWN, 0)]
    assert rig.crash_trailers.guard(FakeTransport(), b"7") is None


def test_a_request_id_that_is_too_long_is_left_out() -> None:
    assert len(encode_trailers(b"x" * SLOT)) <= SLOT - RECORD.size
    assert b"request_id" not in encode_trailers(b"x" * SLOT)
    assert encode_trailers(b"x" * SLOT).startswith(b"0\r\ngrpc-status: 14\r\n")


# -- with calls ---------------------------------------------------------------------------------


async def serve_with_crash_trailers(serve: Any, **handlers: Any) -> tuple[Peer, Rig]:
    server = serve(**handlers)
    rig = Rig()
    server.host.crash_trailers = rig.crash_trailers
    return Peer(server), rig


@in_virtual_time
async def test_a_stream_has_crash_trailers_from_its_first_message_to_its_last(serve: Any) -> None:
    resume = SimpleNamespace()

    async def handler(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue(value="one")
        await resume.event.wait()

    resume.event = asyncio.Event()
    peer, rig = await serve_with_crash_trailers(serve, out=(Cardinality.UNARY_STREAM, handler))
    peer.call("out", Int32Value())
    assert rig.trailers() is None
    await next_check()
    assert b"one" in peer.transport.written
    assert rig.trailers() == encode_trailers(b"made")
    resume.event.set()
    await peer.answered()
    await turn()
    assert rig.trailers() is None


@in_virtual_time
async def test_a_response_in_one_write_has_none(serve: Any) -> None:
    async def plain(request: Int32Value) -> StringValue:
        return StringValue(value="x")

    async def with_trailers(request: Int32Value, grpc_context: Any) -> StringValue:
        grpc_context.set_trailing_metadata((("a", "b"),))
        return StringValue(value="x" * 100_000)

    peer, rig = await serve_with_crash_trailers(
        serve, plain=(Cardinality.UNARY_UNARY, plain), trailers=(Cardinality.UNARY_UNARY, with_trailers)
    )
    for method in ("plain", "trailers"):
        peer.transport.chunks.clear()
        peer.call(method, Int32Value())
        await peer.answered()
    await next_check()
    assert rig.sent.packets == []


@in_virtual_time
async def test_a_unary_response_with_early_metadata_has_crash_trailers(serve: Any) -> None:
    resume = SimpleNamespace()

    async def early(request: Int32Value, grpc_context: Any) -> StringValue:
        await grpc_context.send_initial_metadata((("a", "b"),))
        await resume.event.wait()
        return StringValue(value="x")

    resume.event = asyncio.Event()
    peer, rig = await serve_with_crash_trailers(serve, early=(Cardinality.UNARY_UNARY, early))
    peer.call("early", Int32Value())
    await next_check()
    assert rig.trailers() == encode_trailers(b"made")
    resume.event.set()
    assert (await peer.answered())["grpc-status"] == "0"
    await turn()
    assert rig.trailers() is None


@in_virtual_time
async def test_a_disconnected_client_leaves_none(serve: Any) -> None:
    async def handler(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue(value="one")
        await asyncio.Event().wait()

    peer, rig = await serve_with_crash_trailers(serve, out=(Cardinality.UNARY_STREAM, handler))
    peer.call("out", Int32Value())
    await next_check()
    assert rig.trailers() == encode_trailers(b"made")
    peer.connection.connection_lost(None)
    await turn()
    assert rig.trailers() is None
    assert rig.sent.packets == [(0, 1), (0, 0)]

"""Memory limits of a call, and fair use of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, Int32Value, StringValue

from sdk._wire.call import HIGH_WATER, MESSAGE_COST
from sdk._wire.frames import pack_prefix
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from sdk.context import ServicerContext
from sdk.service import Method, MethodBinding
from tests.support.loops import on_uvloop
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Peer

MIB = 1 << 20


async def double(request: Int32Value) -> StringValue:
    return StringValue(value=str(request.value * 2))


async def endless(request: Int32Value) -> AsyncIterator[StringValue]:
    while True:
        yield StringValue(value="x")


async def endless_by_write(request: Int32Value, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
    while True:
        await grpc_context.write(StringValue(value="x"))
    yield StringValue()


@pytest.mark.parametrize("handler", [endless, endless_by_write])
async def test_a_stream_that_never_waits_yields_to_other_calls_and_ends_with_its_client(
    handler: Any, serve: Any
) -> None:
    server = serve(Endless=(SERVER, handler), Double=(UNARY, double))
    endless, other = Peer(server), Peer(server)
    endless.call("Endless", Int32Value())
    await asyncio.sleep(0)
    other.call("Double", Int32Value())
    assert (await other.answered())["grpc-status"] == "0"
    assert b"grpc-status" not in endless.transport.written
    endless.transport.closed = True
    endless.connection.connection_lost(None)
    while server.host.ongoing:
        await asyncio.sleep(0)


@pytest.mark.parametrize("message", [b"", b"x", b"xy"])
async def test_a_flood_of_short_messages_is_stopped(message: bytes, serve: Any) -> None:
    async def hang(requests: AsyncIterator[Int32Value]) -> StringValue:
        await asyncio.Event().wait()
        raise AssertionError

    peer = Peer(serve(Hang=(CLIENT, hang)))
    peer.head("Hang")
    for _ in range(HIGH_WATER // (MESSAGE_COST + len(message)) // 1000 + 1):
        assert peer.transport.reading
        peer.raw((pack_prefix(0, len(message)) + message) * 1000)
    assert not peer.transport.reading


async def test_a_body_in_many_short_pieces_costs_no_more_than_its_bytes(serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    peer.head("Double")
    peer.raw(pack_prefix(0, MIB // 4))
    pieces = b"2\r\nab\r\n" * 5000
    tracemalloc.start()
    try:
        for _ in range(MIB // 4 // 10_000):
            peer.connection.data_received(pieces)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * MIB / 4


# -- with sockets --------------------------------------------------------------------------------


class Client:
    """A client that reads and writes only on request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def call(cls, port: int, method: str) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 16))
        client.writer.write(
            b"POST /t.T/%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
            % method.encode()
        )
        return client

    def send(self, message: bytes) -> None:
        self.writer.writelines([b"%x\r\n%s" % (len(message) + 5, pack_prefix(0, len(message))), message, b"\r\n"])

    def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")

    async def read_to_the_end(self) -> int:
        """Read the response, and return its length."""
        total, tail = 0, b""
        while b"grpc-status: 0\r\n" not in tail:
            piece = await self.reader.read(MIB)
            assert piece, tail
            total, tail = total + len(piece), (tail + piece)[-200:]
        return total


@contextlib.asynccontextmanager
async def over_sockets(settings: WireSettings | None = None, **handlers: Any) -> AsyncIterator[tuple[int, WireServer]]:
    """Serve handlers at a port."""
    server = WireServer(
        [
            MethodBinding(Method(name, name, f"/t.T/{name}", cardinality, BytesValue, BytesValue), handler)
            for name, (cardinality, handler) in handlers.items()
        ],
        settings,
    )
    port = await server.listen("127.0.0.1")
    try:
        yield port, server
    finally:  # a handler's thread must not outlive a test that fails
        await server.drain(quiet_s=0, grace_s=0)


class Peak:
    """Peak memory of Python objects during a block, in MiB."""

    mib: float

    def __enter__(self) -> Peak:
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mib = tracemalloc.get_traced_memory()[1] / MIB
        tracemalloc.stop()


CHUNK = BytesValue(value=b"x" * 10_000)


async def fast(request: BytesValue) -> AsyncIterator[BytesValue]:
    for _ in range(5_000):
        sent.append(1)
        yield CHUNK


def sync_fast(request: BytesValue) -> Iterator[BytesValue]:
    for _ in range(5_000):
        sent.append(1)
        yield CHUNK


sent: list[int] = []


async def settled(seen: list[int]) -> int:
    """Return the length of a list once it no longer grows."""
    before = -1
    while before != len(seen) or not seen:
        before = len(seen)
        await asyncio.sleep(0.1)
    return before


@pytest.mark.parametrize("handler", [fast, sync_fast])
@on_uvloop
async def test_a_slow_client_stops_a_fast_handler(handler: Any) -> None:
    sent.clear()

    async with over_sockets(Fast=(SERVER, handler)) as (port, _):
        with Peak() as peak:
            client = await Client.call(port, "Fast")
            client.send(b"")
            client.end()
            count = await settled(sent)
        assert count < 5_000  # of 50 MB: the kernel's buffers took a few
        assert peak.mib < 2
        assert await client.read_to_the_end() > 50_000_000
        client.writer.close()


@pytest.mark.parametrize("is_sync", [False, True])
@on_uvloop
async def test_a_slow_handler_stops_a_fast_client(is_sync: bool) -> None:
    go, go_thread = asyncio.Event(), threading.Event()

    async def slow(requests: AsyncIterator[BytesValue]) -> BytesValue:
        await go.wait()
        return BytesValue(value=b"%d" % sum([len(request.value) async for request in requests]))

    def sync_slow(requests: Iterator[BytesValue]) -> BytesValue:
        go_thread.wait(20)
        return BytesValue(value=b"%d" % sum(len(request.value) for request in requests))

    async with over_sockets(Slow=(CLIENT, sync_slow if is_sync else slow)) as (port, _):
        message, sent = CHUNK.SerializeToString(), 0
        with Peak() as peak:
            client = await Client.call(port, "Slow")
            with contextlib.suppress(asyncio.TimeoutError):
                while True:
                    client.send(message)
                    await asyncio.wait_for(client.writer.drain(), 0.3)
                    sent += 1
        assert sent < 5_000  # of 50 MB
        assert peak.mib < 3
        go.set()
        go_thread.set()
        client.end()
        await client.read_to_the_end()
        client.writer.close()


LONG = b"x" * 100_000_000


async def take(request: BytesValue) -> BytesValue:
    assert len(request.value) == len(LONG)
    return BytesValue()


async def take_stream(requests: AsyncIterator[BytesValue]) -> AsyncIterator[BytesValue]:
    async for request in requests:
        yield await take(request)


async def give(request: BytesValue) -> BytesValue:
    return BytesValue(value=LONG)


async def give_stream(request: BytesValue) -> AsyncIterator[BytesValue]:
    yield await give(request)


@pytest.mark.parametrize(
    ("cardinality", "handler"), [(UNARY, take), (BIDI, take_stream), (UNARY, give), (SERVER, give_stream)]
)
@on_uvloop
async def test_a_message_of_100_mb_is_held_once(cardinality: Any, handler: Any) -> None:
    message = BytesValue(value=LONG).SerializeToString() if handler in (take, take_stream) else b""

    async def send(client: Client) -> None:
        client.writer.write(b"%x\r\n%s" % (len(message) + 5, pack_prefix(0, len(message))))
        view = memoryview(message)
        for start in range(0, len(message), MIB):
            client.writer.write(view[start : start + MIB])
            await client.writer.drain()
        client.writer.write(b"\r\n")
        client.end()

    async with over_sockets(WireSettings(max_receive_message_length=101_000_000), Long=(cardinality, handler)) as (
        port,
        _,
    ):
        client = await Client.call(port, "Long")
        with Peak() as peak:
            sender = asyncio.create_task(send(client))
            await client.read_to_the_end()
            await sender
        assert peak.mib < 1.3 * len(LONG) / MIB  # the received body, or the serialised message: once
        client.writer.close()

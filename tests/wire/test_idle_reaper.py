"""Connections without progress are ended; Envoy's own are never cut short."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire import idle_reaper
from sdk._wire.idle_reaper import IDLE_TIMEOUT_S, STALL_TIMEOUT_S
from sdk._wire.server import WireServer
from sdk.service import Method, MethodBinding
from tests.support import loops
from tests.support.loops import on_uvloop
from tests.support.virtual_time import in_virtual_time
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Peer, until

HEAD = b"POST /t.T/%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b"7\r\n\0\0\0\0\2\x08\x04\r\n0\r\n\r\n"
GOOD = HEAD % b"Double" + BODY


async def double(request: Int32Value) -> StringValue:
    return StringValue(value=str(request.value * 2))


async def hang(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
    yield StringValue(value="first")
    await asyncio.Event().wait()


async def refuse(requests: AsyncIterator[Int32Value]) -> StringValue:
    return StringValue(value="enough")


def silent(connection: Any) -> None:
    """A peer that sends nothing."""


def within_the_head(connection: Any) -> None:
    connection.data_received(GOOD[:40])


def after_a_call(connection: Any) -> None:
    connection.data_received(GOOD)


def after_a_call_in_http_1_0(connection: Any) -> None:
    head, _, _ = GOOD.partition(b"transfer-encoding")
    connection.data_received(head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"content-length: 7\r\n\r\n\0\0\0\0\2\x08\x04")


def within_a_call(connection: Any) -> None:
    connection.data_received(HEAD % b"Hang")


def within_the_body(connection: Any) -> None:
    connection.data_received(HEAD % b"Double" + BODY[:5])


def answered_and_still_sending(connection: Any) -> None:
    connection.data_received(HEAD % b"Refuse")


def rejected(connection: Any) -> None:
    connection.data_received(b"nonsense")


@pytest.mark.parametrize(
    ("does", "patience_s", "said", "how"),
    [
        (silent, IDLE_TIMEOUT_S, b"", "closed"),
        (within_the_head, STALL_TIMEOUT_S, b"HTTP/1.1 408 ", "ended"),
        (after_a_call, IDLE_TIMEOUT_S, b"HTTP/1.1 200 ", "closed"),
        (after_a_call_in_http_1_0, STALL_TIMEOUT_S, b"HTTP/1.1 200 ", "closed"),
        (within_a_call, None, b"HTTP/1.1 200 ", ""),
        (within_the_body, None, b"", ""),
        (answered_and_still_sending, STALL_TIMEOUT_S, b"HTTP/1.1 200 ", "closed"),
        (rejected, STALL_TIMEOUT_S, b"HTTP/1.1 400 ", "aborted"),
    ],
)
async def test_timeout_of_each_phase(
    does: Callable[[Any], None], patience_s: float | None, said: bytes, how: str, serve: Any
) -> None:
    server = serve(Double=(UNARY, double), Hang=(BIDI, hang), Refuse=(CLIENT, refuse))
    peer = Peer(server)
    does(peer.connection)
    for _ in range(10):
        await asyncio.sleep(0)
    transport = peer.transport
    before = (transport.ended, transport.closed)
    server.reaper.reap(0)
    server.reaper.reap((patience_s or IDLE_TIMEOUT_S * 10) - 0.001)
    assert (transport.ended, transport.closed) == before
    server.reaper.reap(patience_s or IDLE_TIMEOUT_S * 20)
    assert transport.written.startswith(said)
    assert not how or getattr(transport, how)
    assert how or (transport.ended, transport.closed) == before
    assert transport.aborted == (how == "aborted")


async def test_each_call_restarts_the_timeout(serve: Any) -> None:
    server = serve(Double=(UNARY, double))
    peer = Peer(server)
    for now in range(0, int(IDLE_TIMEOUT_S * 5), int(IDLE_TIMEOUT_S / 2)):
        peer.connection.data_received(GOOD)
        for _ in range(10):
            await asyncio.sleep(0)
        server.reaper.reap(now)
    assert not peer.transport.closed


async def test_a_slow_reader_may_stay_and_a_stalled_one_may_not(serve: Any) -> None:
    server = serve(Double=(UNARY, double))
    peer = Peer(server)
    peer.connection.data_received(b"nonsense")  # the response is out, and the connection is closing
    for now, unsent in enumerate(range(1000, 0, -100)):
        peer.transport.unsent = unsent
        server.reaper.reap(now * (STALL_TIMEOUT_S - 1))
    assert not peer.transport.aborted
    server.reaper.reap(now * (STALL_TIMEOUT_S - 1) + STALL_TIMEOUT_S)
    assert peer.transport.aborted


async def test_an_unread_response_has_the_idle_timeout(serve: Any) -> None:
    server = serve(Refuse=(CLIENT, refuse))
    peer = Peer(server)
    answered_and_still_sending(peer.connection)
    await peer.answered()
    peer.transport.unsent = 1_000_000  # Envoy stops reading while its own client does
    server.reaper.reap(0)
    server.reaper.reap(IDLE_TIMEOUT_S - 1)
    assert not peer.transport.closed
    server.reaper.reap(IDLE_TIMEOUT_S)
    assert peer.transport.closed


async def test_too_many_connections_are_refused_and_idle_ones_make_room(
    caplog: pytest.LogCaptureFixture, serve: Any
) -> None:
    server = serve(Double=(UNARY, double), Hang=(BIDI, hang))
    server.reaper.limit = 4
    busy, *idle = [Peer(server) for _ in range(4)]
    within_a_call(busy.connection)
    late = Peer(server)
    assert late.transport.aborted
    assert server.connections == 4
    with caplog.at_level(logging.WARNING):
        server.reaper.reap(0)
    assert "refused 1 connections: 4 are open" in caplog.text
    server.reaper.reap(STALL_TIMEOUT_S)
    assert all(peer.transport.closed for peer in idle)
    assert not busy.transport.closed


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which connections are compared."""
    times: list[float] = []
    reap = idle_reaper.IdleReaper.reap

    def record(reaper: idle_reaper.IdleReaper, now: float) -> None:
        times.append(now)
        reap(reaper, now)

    monkeypatch.setattr(idle_reaper.IdleReaper, "reap", record)
    return times


@in_virtual_time
async def test_an_idle_server_seldom_wakes_up(looks: list[float], serve: Any) -> None:
    server = serve(Double=(UNARY, double))
    peers = [Peer(server) for _ in range(3)]
    after_a_call(peers[0].connection)
    await asyncio.sleep(101.5)
    assert looks == [1.0, *range(6, 102, 5)]
    for peer in peers:
        peer.connection.connection_lost(None)
    await asyncio.sleep(100)
    assert looks[-1] == 106, "without connections it does not wake up at all"


@in_virtual_time
async def test_a_new_connection_is_compared_within_a_second(looks: list[float], serve: Any) -> None:
    server = serve(Double=(UNARY, double))
    Peer(server)
    await asyncio.sleep(20.5)
    within_the_head(Peer(server).connection)
    await asyncio.sleep(3)
    assert looks[-3:] == [21.5, 22.5, 23.5]


@in_virtual_time
async def test_a_connection_that_is_no_longer_read_is_compared_within_a_second(looks: list[float], serve: Any) -> None:
    server = serve(Hang=(BIDI, hang))
    peer = Peer(server)
    await asyncio.sleep(20.5)
    within_a_call(peer.connection)
    while peer.connection.call is None or not peer.connection.call.paused:
        peer.send(Int32Value(value=1))
    await asyncio.sleep(3)
    assert looks[-3:] == [21.5, 22.5, 23.5]


@in_virtual_time
async def test_a_crowd_of_idle_connections_is_compared_once_a_second(looks: list[float], serve: Any) -> None:
    server = serve(Double=(UNARY, double))
    server.reaper.limit = 4
    peers = [Peer(server) for _ in range(3)]
    await asyncio.sleep(STALL_TIMEOUT_S + 1.5)
    assert looks == list(range(1, 12))
    assert all(peer.transport.closed for peer in peers)


def test_file_descriptors_are_reserved_for_the_process() -> None:
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 0 < idle_reaper.max_connections() < files


# -- with sockets --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def over_sockets(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[int, WireServer]]:
    """Serve handlers at a port, and look for idle connections all the time."""
    monkeypatch.setattr(idle_reaper, "REAP_INTERVAL_S", 0.02)
    monkeypatch.setattr(idle_reaper, "STALL_TIMEOUT_S", 0.1)

    async def never_reads(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
        yield StringValue(value="first")
        await asyncio.Event().wait()

    async def long(request: Int32Value) -> StringValue:
        return StringValue(value="x" * 20_000_000)

    async def stream(request: Int32Value) -> AsyncIterator[StringValue]:
        while True:
            yield StringValue(value="x" * 1000)

    handlers = {
        "Double": (UNARY, double),
        "NeverReads": (BIDI, never_reads),
        "Refuse": (CLIENT, refuse),
        "Long": (UNARY, long),
        "Stream": (SERVER, stream),
    }
    server = WireServer(
        [
            MethodBinding(Method(name, name, f"/t.T/{name}", cardinality, Int32Value, StringValue), handler)
            for name, (cardinality, handler) in handlers.items()
        ]
    )
    port = await server.listen("127.0.0.1")
    try:
        yield port, server
    finally:  # a handler's thread must not outlive a test that fails
        await server.drain(quiet_s=0, grace_s=0)


async def until_closed(server: WireServer) -> None:
    async def wait() -> None:
        while server.connections or server.host.ongoing:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), loops.PATIENCE_S)


@on_uvloop
async def test_a_rejected_peer_reads_the_reason_even_if_it_still_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with over_sockets(monkeypatch) as (port, server):
        for data in (b"GET / HTTP/1.1\r\n\r\n", GOOD[:-6] + b"zz\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            for _ in range(50):  # a reset would discard the response
                writer.write(b"x" * 100_000)
                await writer.drain()
            answer = await reader.read(-1)
            assert b" 405 " in answer or b"grpc-status: 13" in answer
            writer.close()
            await until_closed(server)


@on_uvloop
async def test_a_flood_of_connections_leaves_room_for_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD)
        await reader.readuntil(b"grpc-status: 0\r\n")
        await reader.readuntil(b"\r\n\r\n")

    async with over_sockets(monkeypatch) as (port, server):
        server.reaper.limit = 20
        before = await asyncio.open_connection("127.0.0.1", port)
        await call(*before)
        monkeypatch.setattr(idle_reaper, "STALL_TIMEOUT_S", 3600.0)  # none makes room before the flood is seen
        flood = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        while server.connections != 20:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(idle_reaper, "STALL_TIMEOUT_S", 0.1)
        for _ in range(20):
            await call(*before)
            assert server.connections <= 20
            await asyncio.sleep(0.01)
        while server.connections >= 20 * idle_reaper.CROWDED_SHARE:  # silent ones make room, the used one stays
            await call(*before)
            await asyncio.sleep(0.01)
        after = await asyncio.open_connection("127.0.0.1", port)
        await call(*after)
        for _, writer in (before, after):
            writer.close()
        for client in flood:
            client.close()
        await until_closed(server)


@on_uvloop
async def test_stalled_peers_are_cut_and_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async with over_sockets(monkeypatch) as (port, server):
        stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for number, (_, writer) in enumerate(stalled):
            writer.write(GOOD[: 1 + number])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(20):
            writer.write(GOOD)
            await reader.readuntil(b"grpc-status: 0\r\n")
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.01)
        writer.close()
        for reader, writer in stalled:
            assert (await reader.read(-1)).startswith(b"HTTP/1.1 408 ")
            writer.close()
        await until_closed(server)


@on_uvloop
async def test_a_peer_that_sends_without_end_after_its_response_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async with over_sockets(monkeypatch) as (port, server):
        client = socket.create_connection(("127.0.0.1", port))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, HEAD % b"Refuse")

        async def send() -> None:
            while True:
                await loop.sock_sendall(client, b"5\r\nhello\r\n" * 1000)
                await asyncio.sleep(0.001)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await send()
        await until_closed(server)
        client.close()


@on_uvloop
async def test_a_peer_that_never_reads_its_response_is_cut_at_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with over_sockets(monkeypatch) as (port, server):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(HEAD % b"Long" + BODY)
        while server.host.ongoing or not server.host.received:
            await asyncio.sleep(0.01)
        await server.drain(quiet_s=0, grace_s=0)
        await until_closed(server)
        client.close()


@pytest.mark.parametrize("how", ["closes", "resets", "closes a unix socket and leaves nothing unread"])
@on_uvloop
async def test_a_disconnect_is_noticed_while_messages_are_not_read(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    # Over TCP the end of a client that has read everything is queued behind all that it has sent: then the kernel
    # notices it, after minutes.

    async with over_sockets(monkeypatch) as (port, server):
        if "unix" in how:
            client, ours = socket.socketpair()
            await server.host.loop.connect_accepted_socket(lambda: server.new_connection(), ours)
        else:
            client = socket.create_connection(("127.0.0.1", port))
        client.setblocking(False)
        client.sendall(HEAD % b"NeverReads")
        flood = b"7\r\n\0\0\0\0\2\x08\x04\r\n" * 1000
        loop = asyncio.get_running_loop()

        async def send() -> None:
            while True:
                await loop.sock_sendall(client, flood)

        sending = asyncio.create_task(send())
        # The handler reads nothing, so the server stops reading.
        await until(lambda: any(connection.unread_socket is not None for connection in server.reaper.connections))
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert server.host.ongoing == 1
        if "unread" in how:
            assert b"first" in await loop.sock_recv(client, 10_000)
        if how == "resets":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await until_closed(server)


@pytest.mark.parametrize("method", [b"Stream", b"Long", b"NeverReads"])
@on_uvloop
async def test_a_reset_at_any_time_leaves_nothing(monkeypatch: pytest.MonkeyPatch, method: bytes) -> None:
    async with over_sockets(monkeypatch) as (port, server):
        for number in range(20):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(HEAD % method + BODY)
            await asyncio.sleep(0.001 * number)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        await until_closed(server)


@on_uvloop
async def test_a_half_close_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with over_sockets(monkeypatch) as (port, server):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(HEAD % b"NeverReads")
        client.shutdown(socket.SHUT_WR)
        while not server.host.received:
            await asyncio.sleep(0.01)
        await until_closed(server)
        client.close()


@on_uvloop
async def test_keepalive_is_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with over_sockets(monkeypatch) as (port, server):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        while not server.connections:
            await asyncio.sleep(0.01)
        (connection,) = server.reaper.connections
        accepted = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
        writer.close()
        await until_closed(server)

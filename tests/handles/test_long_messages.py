"""Long messages through handles: they are read into their own buffer, and arrive however the bytes are split."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle

from sdk._channel import replicas
from sdk._channel.connection import ReplicaConnection
from sdk._channel.feed import Address, State
from sdk._channel.target import Target
from sdk._guard.between_nodes import BetweenNodes
from sdk._wire.frames import LARGE, pack_prefix
from sdk._wire.host import KEEP_ALIVE_HEAD
from sdk._wire.send_buffer import SEND_BUFFER
from sdk.errors import RpcError
from sdk.handles import HandleUnary, ServiceHandle
from tests.support.certificates import Authority
from tests.support.loops import on_uvloop
from tests.support.served_handle import deployment
from tests.support.wire_rig import FakeTransport

_METHOD = AsyncProbeHandle.__grpc_service__.methods[0]
_OK = b"grpc-status: 0\r\nrequest_id: r\r\n\r\n"
_LOST = "UNAVAILABLE: The replica died before its answer was complete."


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def message(size: int, flag: int = 0) -> bytes:
    data = Told(payload=b"x" * size).SerializeToString()
    return pack_prefix(flag, len(data)) + data


class Switching(FakeTransport):
    """A transport whose protocol can be replaced, and the replica's end of it."""

    protocol: Any
    buffered = 0

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def receive(self, data: bytes) -> None:
        while data and not self.closed:
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                buffer = self.protocol.get_buffer(-1)
                taken = min(len(buffer), len(data))
                buffer[:taken] = data[:taken]
                self.buffered += taken
                self.protocol.buffer_updated(taken)
                del buffer
            else:
                taken = len(data)
                self.protocol.data_received(data)
            data = data[taken:]

    def lose(self) -> None:
        self.protocol.connection_lost(None)


def one_connection() -> tuple[Any, Switching]:
    """Return a handle with one idle connection, and the transport of that."""
    loop = asyncio.get_running_loop()
    target = Target(("app", "D"), None, loop, "", lambda _: None)
    target.apply(State("app", "D", True, (Address("r", "", 0),)))
    (replica,) = target.replicas
    connection, transport = ReplicaConnection(replica), Switching()
    transport.protocol = connection
    connection.connection_made(transport)  # type: ignore[arg-type]
    replica.loop = loop
    replica.release(connection)
    handle: Any = ServiceHandle(None)
    handle._loop, handle._target = loop, target
    return handle, transport


async def answered(pieces: Iterator[bytes], *, loses: bool = False) -> tuple[str | Told, Switching]:
    """Return the outcome of a call whose response arrives in these pieces, and its transport."""
    handle, transport = one_connection()
    return await answered_by(handle, transport, pieces, loses=loses), transport


async def answered_by(handle: Any, transport: Switching, pieces: Iterator[bytes], *, loses: bool = False) -> str | Told:
    waiting = asyncio.ensure_future(HandleUnary.of(handle, _METHOD)(Ask()))
    await asyncio.sleep(0)
    for piece in pieces:
        transport.receive(piece)
    if loses:
        transport.lose()
    try:
        return await waiting
    except RpcError as error:
        return str(error)


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = [0, *sorted({cut % len(data) for cut in cuts} - {0}), len(data)]
    return (data[start:stop] for start, stop in pairwise(places))


_near = st.sampled_from([LARGE, LARGE + 200, 3 * LARGE])


@settings(max_examples=30)
@given(_near, st.lists(st.integers(0, 4 * LARGE), max_size=6))
def test_a_message_does_not_depend_on_the_split(size: int, cuts: list[int]) -> None:
    response = KEEP_ALIVE_HEAD + chunk(message(size)) + b"0\r\n" + _OK
    told, transport = asyncio.run(answered(split(response, cuts)))
    assert told == Told(payload=b"x" * size)
    assert not transport.closed


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        (b"0\r\ngrpc-status: 5\r\ngrpc-message: gone\r\nrequest_id: r\r\n\r\n", "NOT_FOUND: gone"),
        (chunk(message(3)) + b"0\r\n" + _OK, "INTERNAL: response: the request has more than one message"),
        (b"no chunk", "INTERNAL: the response of the replica is malformed"),
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 10])
async def test_the_rest_of_the_response_counts_too(after: bytes, outcome: str, cut: int) -> None:
    begin, end = KEEP_ALIVE_HEAD + chunk(message(2 * LARGE))[:-2], b"\r\n" + after
    told, transport = await answered(iter([begin[:500], begin[500:] + end[:cut], end[cut:]]))
    assert isinstance(told, str)
    assert told.startswith(outcome)
    assert transport.buffered > LARGE


@pytest.mark.parametrize("size", [3, 2000, 2 * LARGE])
async def test_after_a_long_response_only_the_first_bytes_of_the_next_are_copied(size: int) -> None:
    handle, transport = one_connection()
    long = KEEP_ALIVE_HEAD + chunk(message(2 * LARGE)) + b"0\r\n" + _OK
    assert await answered_by(handle, transport, split(long, [500])) == Told(payload=b"x" * 2 * LARGE)
    response = KEEP_ALIVE_HEAD + chunk(message(size)) + b"0\r\n" + _OK
    for buffered in min(len(response), 1 << 10), 0:
        transport.buffered = 0
        told = await answered_by(handle, transport, iter([response]))
        assert told == Told(payload=b"x" * size)
        if size < LARGE:
            assert transport.buffered == buffered
        elif buffered:
            assert transport.buffered == len(response) - len(b"\r\n0\r\n" + _OK)


async def test_a_replica_that_dies_before_the_first_bytes_of_a_response_that_may_be_long() -> None:
    handle, transport = one_connection()
    long = KEEP_ALIVE_HEAD + chunk(message(2 * LARGE)) + b"0\r\n" + _OK
    await answered_by(handle, transport, split(long, [500]))
    assert await answered_by(handle, transport, iter([]), loses=True) == _LOST


async def test_a_flag_is_not_ignored() -> None:
    response = KEEP_ALIVE_HEAD + chunk(message(2 * LARGE, flag=1)) + b"0\r\n" + _OK
    told, _ = await answered(iter([response[:500], response[500:]]))
    assert told == "INTERNAL: response: compressed message on a call with the encoding 'identity'"


@pytest.mark.parametrize("arrived", [500, LARGE, 2 * LARGE, -20])
async def test_a_replica_that_dies_within_a_message(arrived: int) -> None:
    response = KEEP_ALIVE_HEAD + chunk(message(2 * LARGE)) + b"0\r\n" + _OK
    told, _ = await answered(iter([response[:300], response[300:arrived]]), loses=True)
    assert told == _LOST


class Echo(AsyncProbeBase):
    """Answers with the payload."""

    async def Unary(self, request: Ask) -> Told:
        return Told(payload=request.payload)


async def exchange(served: Any) -> None:
    """Send long messages over one connection, in both directions, with short ones between them."""
    handle = AsyncProbeHandle(served.handle)
    for size in (1, LARGE, 5 << 20, 0, 1 << 20, 7):
        payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        assert (await handle.Unary(Ask(payload=payload))).payload == payload
    (server,) = served.replicas
    (connection,) = server._connections
    at_caller = connection._transport.get_extra_info("socket")
    if at_caller.family == socket.AF_UNIX:
        assert at_caller.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= min(2 * SEND_BUFFER, _largest_buffer())


def _largest_buffer() -> int:
    return 2 * int(Path("/proc/sys/net/core/wmem_max").read_text())


async def test_on_one_node() -> None:
    async with deployment(Echo()) as served:
        await exchange(served)


@on_uvloop
async def test_on_one_node_with_uvloop() -> None:
    async with deployment(Echo()) as served:
        await exchange(served)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_between_nodes(tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await between_nodes(tmp_path if tls else None, monkeypatch)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@on_uvloop
async def test_between_nodes_with_uvloop(tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await between_nodes(tmp_path if tls else None, monkeypatch)


async def between_nodes(folder: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with deployment(Echo()) as served:
        server: Any = served.replicas[0]
        if folder is not None:
            nodes = Authority("nodes")
            certificate, key = nodes.sign("node").write(folder, "node")
            (folder / "ca.crt").write_bytes(nodes.certificate)
            server._guard = BetweenNodes("tls", certificate, key, str(folder / "ca.crt"))
            monkeypatch.setattr(replicas, "own_between_nodes", lambda: server._guard)
        port = await server.listen("127.0.0.1")
        server.address = server.address._replace(port=port, node_id="another node")
        served.publish()
        await exchange(served)


async def test_a_caller_that_leaves_within_a_message_cancels_it() -> None:
    async with deployment(Echo()) as served:
        handle = AsyncProbeHandle(served.handle)
        call = asyncio.ensure_future(handle.Unary(Ask(payload=b"x" * (20 << 20))))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await handle.Unary(Ask(payload=b"y"))).payload == b"y"

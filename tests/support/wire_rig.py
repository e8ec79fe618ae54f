"""Envoy's side of a connection to the wire server, without sockets, and a loop for tests."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire.frames import pack_prefix, unpack_prefix
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from sdk.service import Cardinality, Method, MethodBinding
from tests.support.loops import PATIENCE_S

_ALIVE, _ = os.pipe()  # for the reaper, which polls the kernel for disconnected peers


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that another thread, or a timer, makes true.

    Raises:
        TimeoutError: It does not hold in time.
    """

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.002)

    await asyncio.wait_for(poll(), PATIENCE_S)


async def until_it_waits_for_its_client(peer: Peer) -> None:
    """Wait until the handler of the ongoing call waits for a client that reads nothing."""

    def is_waiting() -> bool:
        call = peer.connection._call
        return call is not None and call._write_waiter is not None and not call._write_waiter.done()

    await until(is_waiting)


async def turns(count: int = 20) -> None:
    """Run a number of turns of the loop; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


class FakeTransport:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.writes = 0
        self.reading = True
        self.closed = False
        self.aborted = False
        self.ended = False  # our side has sent its end of file
        self.unsent = 0
        self.family = socket.AF_UNIX
        self.on_write: Callable[[], object] = lambda: None

    @property
    def written(self) -> bytes:
        self.chunks[:] = [b"".join(self.chunks)]
        return self.chunks[0]

    def write(self, data: bytes) -> None:
        assert not self.closed
        assert not self.ended
        self.writes += 1
        self.chunks.append(data)
        self.on_write()

    def writelines(self, pieces: Iterable[bytes]) -> None:
        before = self.writes
        for piece in pieces:
            self.write(piece)
        self.writes = before + 1

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def write_eof(self) -> None:
        assert not self.closed
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return SimpleNamespace(fileno=lambda: _ALIVE, family=self.family, setsockopt=lambda *_: None)


class Peer:
    """Envoy's side of one connection."""

    def __init__(self, server: WireServer) -> None:
        self.transport = FakeTransport()
        self.connection = server.new_connection()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def head(self, method: str, *, http: str = "POST", content_type: str = "application/grpc", **headers: str) -> None:
        lines = [f"{http} /t.T/{method} HTTP/1.1", "host: x", f"content-type: {content_type}"]
        lines += ["x-request-id: made", "transfer-encoding: chunked"]
        lines += [f"{key.replace('__', '-')}: {value}" for key, value in headers.items()]
        self.connection.data_received("\r\n".join([*lines, "", ""]).encode())

    def send(self, message: Any) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        self.raw(pack_prefix(0, len(data)) + data)

    def raw(self, body: bytes) -> None:
        self.connection.data_received(b"%x\r\n%s\r\n" % (len(body), body))

    def end(self) -> None:
        self.connection.data_received(b"0\r\n\r\n")

    def call(self, method: str, message: Any, **headers: str) -> None:
        self.head(method, **headers)
        self.send(message)
        self.end()

    async def answer(self) -> Answer:
        await self.answered()
        return parse_answer(self.transport.written)

    def trailers(self) -> dict[str, str]:
        _, _, tail = self.transport.written.rpartition(b"\r\ngrpc-status")
        lines = (b"grpc-status" + tail).decode().split("\r\n")
        return dict(line.split(": ", 1) for line in lines if line)

    async def answered(self) -> dict[str, str]:
        written = asyncio.Event()
        self.transport.on_write = written.set
        while not (self.transport.written.endswith(b"\r\n\r\n") and b"\r\ngrpc-status" in self.transport.written):
            written.clear()
            try:
                await asyncio.wait_for(written.wait(), PATIENCE_S)
            except TimeoutError:
                raise AssertionError(f"the response has no end: {self.transport.written!r}") from None
        return self.trailers()


@dataclass(frozen=True)
class Answer:
    """A whole response: header lines, messages with their flags, trailer lines."""

    head: list[tuple[str, str]]
    messages: list[tuple[int, bytes]]
    trailers: list[tuple[str, str]]


def parse_answer(data: bytes) -> Answer:
    head, _, rest = data.partition(b"\r\n\r\n")
    head, status, trailers = head.partition(b"\r\ngrpc-status")
    if status:
        assert b"content-length: 0" in head
        assert not rest, "an error alone is one block of headers"
        return Answer(_lines(head.split(b"\r\n")[1:]), [], _lines((b"grpc-status" + trailers).split(b"\r\n")))
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        body, rest = body + rest[:length], rest[length + 2 :]
    messages = []
    while body:
        flag, length = unpack_prefix(body)
        messages.append((flag, body[5 : 5 + length]))
        body = body[5 + length :]
    return Answer(_lines(head.split(b"\r\n")[1:]), messages, _lines(rest.split(b"\r\n")))


def _lines(lines: list[bytes]) -> list[tuple[str, str]]:
    return [(name, value) for line in lines if line for name, _, value in [line.decode("latin-1").partition(": ")]]


Serve = Callable[..., WireServer]


@asynccontextmanager
async def serving() -> AsyncIterator[Serve]:
    """Give a function that makes a server of the given handlers on this loop; they are drained at the end."""
    servers: list[WireServer] = []

    def serve(
        settings: WireSettings | None = None,
        compression: grpc.Compression | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        **handlers: tuple[Cardinality, Any],
    ) -> WireServer:
        bindings = [
            MethodBinding(Method(name, name, f"/t.T/{name}", cardinality, Int32Value, StringValue), handler)
            for name, (cardinality, handler) in handlers.items()
        ]
        server = WireServer(bindings, settings, compression=compression, interceptors=interceptors)
        server.host.attach(asyncio.get_running_loop())
        servers.append(server)
        return server

    try:
        yield serve
    finally:  # a handler's thread must not outlive a test that fails
        for server in servers:
            await server.drain(quiet_s=0, grace_s=0)


UNARY, SERVER = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
CLIENT, BIDI = Cardinality.STREAM_UNARY, Cardinality.STREAM_STREAM


async def ask(handler: Any, cardinality: Cardinality = UNARY, interceptors: Any = (), **headers: str) -> Answer:
    """Return the response to one call of a handler; its one request message is the number 7."""
    async with serving() as serve:
        settings = WireSettings(error_details="message")
        peer = Peer(serve(settings=settings, interceptors=interceptors, Get=(cardinality, handler)))
        peer.head("Get", **headers)
        peer.send(Int32Value(value=7))
        peer.end()
        return await peer.answer()

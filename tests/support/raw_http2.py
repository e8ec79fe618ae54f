"""An HTTP/2 connection, frame by frame (RFC 9113), for clients that gRPC's own would not be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.loops import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
#: Longest frame that a server takes without being asked.
MAX_FRAME = 1 << 14
CANCEL = (8).to_bytes(4, "big")


class RawConnection:
    """A client's connection.

    Attributes:
        answered: Streams with response headers.
        was_reset: Streams that the server has reset.
        ended: True once the server has sent GOAWAY, or closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._stream = -1
        self.answered: set[int] = set()
        self.was_reset: set[int] = set()
        self._changed = asyncio.Event()
        self.ended = False

    def start(self, path: str, *metadata: tuple[str, str]) -> int:
        """Start a unary call with an empty message, and return its stream."""
        stream = self.open(path, *metadata)
        self.send(DATA, END_STREAM, bytes(5), stream)
        return stream

    def open(self, path: str, *metadata: tuple[str, str]) -> int:
        """Start a call without a message, and return its stream."""
        stream = self.new_stream()
        self.send(HEADERS, END_HEADERS, request_block(path, *metadata), stream)
        return stream

    @property
    def last_stream(self) -> int:
        """The stream of the newest call; negative before the first."""
        return self._stream

    def new_stream(self) -> int:
        """Return the number of the next stream."""
        self._stream += 2
        return self._stream

    def send(self, kind: int, flags: int = 0, body: bytes = b"", stream: int = 0) -> None:
        """Send a frame; after the end of the connection it goes nowhere."""
        if not self.ended:
            self._writer.write(_frame(kind, flags, body, stream))

    def cancel(self, stream: int) -> None:
        """Reset a stream, as gRPC does for a cancelled call."""
        self.send(RST_STREAM, 0, CANCEL, stream)

    async def flush(self) -> None:
        """Wait until the kernel has most of what was sent."""
        with contextlib.suppress(ConnectionError):  # the server has closed the connection
            await self._writer.drain()

    async def wait_answered(self, stream: int) -> None:
        """Wait for the response of a stream."""
        while stream not in self.answered:
            assert not self.ended, "the connection has ended"
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), PATIENCE_S)

    async def wait_ended(self, stream: int) -> None:
        """Wait until a stream has a response or is reset, or the connection has ended."""
        while stream not in self.answered | self.was_reset and not self.ended:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), PATIENCE_S)

    async def read(self) -> None:
        """Read frames until the connection ends."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                await self._reader.readexactly(length)
                if kind == SETTINGS and not flags:
                    self._writer.write(_frame(SETTINGS, ACK))
                elif kind == HEADERS:
                    self.answered.add(int.from_bytes(head[5:], "big"))
                    self._changed.set()
                elif kind == RST_STREAM:
                    self.was_reset.add(int.from_bytes(head[5:], "big"))
                    self._changed.set()
                elif kind == GOAWAY:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.ended = True
        self._changed.set()


def _frame(kind: int, flags: int = 0, body: bytes = b"", stream: int = 0) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def request_block(path: str, *metadata: tuple[str, str]) -> bytes:
    """Return the headers of a call."""
    fields = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers"))
    return b"".join(literal(*field) for field in (*fields, ("content-type", "application/grpc"), *metadata))


def literal(name: str, value: str) -> bytes:
    """Encode a header field without compression (RFC 7541, section 6.2.2)."""
    return b"\0" + _length(len(name)) + name.encode() + _length(len(value)) + value.encode()


def _length(number: int) -> bytes:
    """Encode the length of a text (RFC 7541, section 5.1)."""
    if number < 127:
        return bytes((number,))
    coded, number = bytearray(b"\x7f"), number - 127
    while number >= 128:
        coded.append(number % 128 + 128)
        number //= 128
    return bytes(coded) + bytes((number,))


@asynccontextmanager
async def connect(
    port: int, *, is_paused: bool = False, context: ssl.SSLContext | None = None
) -> AsyncIterator[RawConnection]:
    """Open a connection to a port of this machine.

    Args:
        port: The port.
        is_paused: Whether the client reads nothing before :meth:`RawConnection.read`, and its kernel next to nothing.
        context: TLS of the connection; None for none.
    """
    client = socket.socket()
    if is_paused:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # so that the sender's buffer is small, too
    await asyncio.get_running_loop().run_in_executor(None, client.connect, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(
        sock=client,
        limit=1024 if is_paused else 1 << 16,
        ssl=context,
        server_hostname="localhost" if context is not None else None,
    )
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS))
    writer.write(_frame(WINDOW_UPDATE, body=(1 << 30).to_bytes(4, "big")))
    connection = RawConnection(reader, writer)
    reading = None if is_paused else asyncio.create_task(connection.read())
    try:
        yield connection
    finally:
        writer.transport.abort()
        if reading is not None:
            await reading
        with contextlib.suppress(OSError):  # the server has closed the connection
            await writer.wait_closed()

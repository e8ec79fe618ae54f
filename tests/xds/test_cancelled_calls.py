"""Clients that cancel many calls, honest and hostile, with a real Envoy, frame by frame (RFC 9113).

Envoy's protections against a flood of resets (CVE-2023-44487) end the whole connection of an honest client.
"""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.envoy_rig import Rig, rig
from tests.support.loops import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.envoy_rig import Apps

CALL, OTHER = "/demo.Greeter/SayHello", "/demo.Other/Do"
APPS: Apps = {"one": {"Greeter": (["demo.Greeter"], ["a"]), "Other": (["demo.Other"], ["b"])}}
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = (8).to_bytes(4, "big")


class RawConnection:
    """One HTTP/2 connection that only sends frames; `ended` is set when Envoy says GOAWAY or closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._stream = -1
        self.answered: set[int] = set()  # streams with response headers
        self.changed = asyncio.Event()
        self.ended = False

    def start(self, path: str) -> int:
        """Start a unary call with an empty message, and return its stream."""
        self._stream += 2
        fields = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers"))
        block = b"".join(_literal(*field) for field in (*fields, ("content-type", "application/grpc")))
        self._writer.write(_frame(HEADERS, END_HEADERS, block, self._stream))
        self._writer.write(_frame(DATA, END_STREAM, bytes(5), self._stream))
        return self._stream

    def cancel(self, stream: int) -> None:
        """Reset a stream, as gRPC does for a cancelled call."""
        self._writer.write(_frame(RST_STREAM, 0, CANCEL, stream))

    async def flush(self) -> None:
        await self._writer.drain()

    async def wait_answered(self, stream: int) -> None:
        while stream not in self.answered:
            assert not self.ended, "the connection has ended"
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), PATIENCE_S)

    async def read(self) -> None:
        """Read frames until the connection ends."""
        try:
            while head := await self._reader.read(9):
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                await self._reader.readexactly(length)
                if kind == SETTINGS and not flags:
                    self._writer.write(_frame(SETTINGS, ACK))
                elif kind == HEADERS:
                    self.answered.add(int.from_bytes(head[5:], "big"))
                    self.changed.set()
                elif kind == GOAWAY:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.ended = True
        self.changed.set()


def _frame(kind: int, flags: int = 0, body: bytes = b"", stream: int = 0) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def _literal(name: str, value: str) -> bytes:
    """Encode a header field without compression (RFC 7541, section 6.2.2)."""
    return bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()


@asynccontextmanager
async def connect(it: Rig) -> AsyncIterator[RawConnection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS))
    connection = RawConnection(reader, writer)
    reading = asyncio.create_task(connection.read())
    try:
        yield connection
    finally:
        writer.close()
        await reading


async def test_cancelled_calls_do_not_end_the_other_calls_of_their_connection() -> None:
    async with rig("a", "b") as it:
        await it.publish(APPS)
        async with connect(it) as client:
            it.upstreams["a"].hold.clear()
            for _ in range(1500):
                client.cancel(client.start(CALL))
                await client.flush()
            await client.wait_answered(client.start(OTHER))
            assert not client.ended


async def test_calls_that_are_cancelled_while_they_are_answered_do_not_end_their_connection() -> None:
    async with rig("a", "b") as it:
        await it.publish(APPS)
        async with connect(it) as client:
            for _ in range(150):
                streams = [client.start(CALL) for _ in range(10)]
                for stream in streams:
                    await client.wait_answered(stream)
                    client.cancel(stream)
            await client.wait_answered(client.start(OTHER))


async def test_a_flood_of_calls_that_are_cancelled_at_once_costs_the_replicas_nothing() -> None:
    flood = 2_000
    async with rig("a", "b") as it:
        await it.publish(APPS)
        async with connect(it) as hostile, connect(it) as honest:
            await honest.wait_answered(honest.start(OTHER))
            it.process.send_signal(signal.SIGSTOP)  # so that the flood arrives in one go
            for _ in range(flood):
                hostile.cancel(hostile.start(CALL))
            await hostile.flush()
            it.process.send_signal(signal.SIGCONT)
            await honest.wait_answered(honest.start(OTHER))
            await hostile.wait_answered(hostile.start(OTHER))
        stats = await it.admin("/stats?filter=cluster.one%23Greeter.upstream_rq_pending_total")
        found = re.search(r"upstream_rq_pending_total: (\d+)", stats)
        assert found is not None
        assert int(found[1]) < flood / 2, "Envoy dropped the others before it routed them"

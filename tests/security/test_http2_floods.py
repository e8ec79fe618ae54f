"""Clients that misuse HTTP/2: each costs a bounded amount, and others are served meanwhile and afterwards.

Every flood is a few thousand frames on one connection to this machine. https://www.rfc-editor.org/rfc/rfc9113#section-10.5
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from tests.security.greeting import SAY_HELLO
from tests.security.world import CALLERS, OK, World
from tests.support.raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_FRAME,
    PING,
    PRIORITY,
    SETTINGS,
    WINDOW_UPDATE,
    RawConnection,
    connect,
    literal,
    request_block,
)

OPEN = ("application", "open")
#: Most memory that one flood may cost Envoy.
BOUND = 64 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def resets(client: RawConnection) -> None:
    client.cancel(client.start(SAY_HELLO, OPEN))


def settings(client: RawConnection) -> None:
    client.send(SETTINGS, body=b"\0\4" + (1 << 16).to_bytes(4, "big"))


def pings(client: RawConnection) -> None:
    client.send(PING, body=bytes(8))


def priorities(client: RawConnection) -> None:
    client.send(PRIORITY, body=bytes(4) + b"\x10", stream=client.new_stream())


def window_updates(client: RawConnection) -> None:
    client.send(WINDOW_UPDATE, body=b"\0\0\0\1")


def unknown_frames(client: RawConnection) -> None:
    client.send(0xF7, body=bytes(64))


def empty_data(client: RawConnection) -> None:
    if client.last_stream < 0:
        client.open(SAY_HELLO, OPEN)
    client.send(DATA, stream=client.last_stream)


def continuations(client: RawConnection) -> None:
    """Headers that never end."""
    if client.last_stream < 0:
        client.send(HEADERS, 0, request_block(SAY_HELLO, OPEN), client.new_stream())
    client.send(CONTINUATION, 0, literal("x-more", "x" * 500), client.last_stream)


def empty_continuations(client: RawConnection) -> None:
    if client.last_stream < 0:
        client.send(HEADERS, 0, request_block(SAY_HELLO, OPEN), client.new_stream())
    client.send(CONTINUATION, 0, b"", client.last_stream)


def many_headers(client: RawConnection) -> None:
    """More headers than a request may have."""
    block = request_block(SAY_HELLO, OPEN, *[(f"x-{number}", "") for number in range(1200)])
    client.send(HEADERS, END_HEADERS | END_STREAM, block, client.new_stream())


def repeated_header(client: RawConnection) -> None:
    """A header of 3 KiB that is named a hundred times by its place in the table of the connection (RFC 7541)."""
    block = b"\x40" + literal("x-long", "x" * 3000)[1:]  # into the table, at its first place after the 61 fixed ones
    client.send(HEADERS, END_HEADERS | END_STREAM, request_block(SAY_HELLO, OPEN) + block + b"\xbe" * 100,
                client.new_stream())  # fmt: skip


def unfinished_calls(client: RawConnection) -> None:
    client.open(SAY_HELLO, OPEN)


def goaways(client: RawConnection) -> None:
    client.send(GOAWAY, body=bytes(8))


FLOODS: dict[str, tuple[Callable[[RawConnection], None], int]] = {
    "calls that are reset at once": (resets, 2000),
    "SETTINGS": (settings, 5000),
    "PING": (pings, 5000),
    "PRIORITY": (priorities, 5000),
    "WINDOW_UPDATE": (window_updates, 5000),
    "frames of an unknown kind": (unknown_frames, 5000),
    "empty DATA": (empty_data, 5000),
    "CONTINUATION": (continuations, 2000),
    "empty CONTINUATION": (empty_continuations, 5000),
    "more headers than are allowed": (many_headers, 100),
    "one long header many times": (repeated_header, 100),
    "calls that send no message": (unfinished_calls, 2000),
    "GOAWAY": (goaways, 2000),
}


@pytest.fixture
def trust(world: World) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=world.authority.decode())
    context.set_alpn_protocols(["h2"])
    return context


def memory_of(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE


async def serves(world: World) -> bool:
    """Return True if another client's call ends OK."""
    answer = await asyncio.to_thread(world.call, CALLERS["nobody"], SAY_HELLO, "open")
    return answer.status == OK


@pytest.mark.parametrize("kind", FLOODS)
async def test_others_are_served_during_a_flood(world: World, trust: ssl.SSLContext, kind: str) -> None:
    flood, count = FLOODS[kind]
    assert await serves(world)
    pid = world.server.envoy_pid
    before = memory_of(pid)
    async with connect(world.port, context=trust) as client:
        for number in range(count):
            flood(client)
            if number % 100 == 99:
                await client.flush()
            if number == count // 2:
                assert await serves(world)
        await client.flush()
        assert await serves(world)
        grown = memory_of(pid) - before
    assert await serves(world)
    assert world.server.envoy_pid == pid
    assert grown < BOUND, f"{grown >> 20} MiB"


async def test_others_are_served_while_clients_do_not_read(world: World, trust: ssl.SSLContext) -> None:
    """Each has many answers under way, and reads none."""
    pid = world.server.envoy_pid
    before = memory_of(pid)
    async with AsyncExitStack() as stack:
        for _ in range(10):
            client = await stack.enter_async_context(connect(world.port, context=trust, is_paused=True))
            for _ in range(100):
                client.start(SAY_HELLO, OPEN)
            await client.flush()
        assert await serves(world)
        assert memory_of(pid) - before < BOUND
    assert await serves(world)


async def test_others_are_served_while_clients_send_slowly(world: World, trust: ssl.SSLContext) -> None:
    """Connections without a request, with half a frame, and calls of which a part of the message has arrived."""
    pid = world.server.envoy_pid
    before = memory_of(pid)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connect(world.port, context=trust)) for _ in range(60)]
        for number, client in enumerate(opened):
            if number % 3:
                stream = client.open(SAY_HELLO, OPEN)
                client.send(DATA, 0, b"\0\0\0" if number % 3 == 1 else b"\0" + MAX_FRAME.to_bytes(4, "big"), stream)
            await client.flush()
        assert await serves(world)
        assert memory_of(pid) - before < BOUND
    assert await serves(world)

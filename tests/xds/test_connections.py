"""Lifetime of client connections, with a real Envoy, frame by frame (RFC 9113)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sdk._ingress.envoy.drain import drain_envoy
from sdk._xds.resources import build_resources
from tests.support.envoy_rig import Rig, rig
from tests.support.loops import PATIENCE_S

if TYPE_CHECKING:
    from tests.support.envoy_rig import Apps

CALL = "/demo.Greeter/SayHello"
TWO: Apps = {"one": {"Greeter": (["demo.Greeter"], ["a"])}, "two": {"Greeter": (["demo.Greeter"], ["b"])}}
ONE, OTHER = ("application", "one"), ("application", "two")
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1


async def watch(port: int, *, answers_pings: bool = True) -> tuple[list[int], float]:
    """Connect without a call, and return the types of the received frames and the seconds until Envoy closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS))
    frames = []
    try:
        while head := await reader.read(9):
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            body = await reader.readexactly(length)
            frames.append(kind)
            if kind == SETTINGS and not flags:
                writer.write(_frame(SETTINGS, ACK))
            elif kind == PING and not flags and answers_pings:
                writer.write(_frame(PING, ACK, body))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
    return frames, time.monotonic() - began


def _frame(kind: int, flags: int = 0, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + bytes(4) + body


async def publish(it: Rig, **options: float | None) -> None:
    config = replace(it.config, **options)  # type: ignore[arg-type]  # names and values of one kind
    await asyncio.wait_for(it.ads.publish(build_resources(it.snapshot(TWO), config)), 5)


async def test_options_of_connections() -> None:
    async def pings() -> None:
        async with rig("a", "b") as it:
            await publish(it, keepalive_time_s=1.0, keepalive_timeout_s=1.0)
            silent, alive = watch(it.port, answers_pings=False), asyncio.create_task(watch(it.port))
            frames, seconds = await asyncio.wait_for(silent, PATIENCE_S)
            assert PING in frames
            assert seconds >= 1
            assert not alive.done(), "this client answers PINGs"
            alive.cancel()

    async def idle() -> None:
        async with rig("a", "b") as it:
            await publish(it, max_connection_idle_s=1.0)
            frames, seconds = await asyncio.wait_for(watch(it.port), PATIENCE_S)
            assert GOAWAY in frames
            assert seconds >= 1

    async def age() -> None:
        async with rig("a", "b") as it:
            await publish(it, max_connection_age_s=1.0)
            it.upstreams["a"].hold.clear()
            long = asyncio.create_task(it.call(CALL, ONE))
            frames, seconds = await asyncio.wait_for(watch(it.port), PATIENCE_S)
            assert GOAWAY in frames
            assert seconds >= 1
            assert not long.done(), "its connection is as old, but has a running call"
            it.upstreams["a"].hold.set()
            assert (await long)[0] == "OK"

    await asyncio.gather(pings(), idle(), age())


async def test_draining_sends_goaway_and_lets_calls_finish() -> None:
    async with rig("a", "b") as it:
        await publish(it)
        it.upstreams["b"].hold.clear()
        running = asyncio.create_task(it.call(CALL, OTHER))
        assert await it.answers(CALL, ONE) == "a"
        while not it.upstreams["b"].calls:
            await asyncio.sleep(0.01)
        drain = asyncio.create_task(drain_envoy(it.folder / "envoy.admin.sock", PATIENCE_S))
        stats = ""
        while "downstream_cx_drain_close: 1" not in stats:  # the connection of a call is closed after it
            assert await it.answers(CALL, ONE) == "a", "calls are still accepted"
            stats = await it.admin("/stats?filter=http.grpc.downstream_cx_drain_close")
        assert not drain.done()
        while True:  # then new connections are rejected
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", it.port)
            except ConnectionError:
                break
            writer.close()
            await asyncio.sleep(0.05)
        assert not drain.done()
        it.upstreams["b"].hold.set()
        await asyncio.wait_for(drain, PATIENCE_S)
        assert (await running)[0] == "OK"


async def test_draining_ends_without_calls_or_at_its_timeout() -> None:
    async with rig("a", "b") as it:
        await publish(it)
        await asyncio.wait_for(drain_envoy(it.folder / "envoy.admin.sock", 600), PATIENCE_S)
        it.upstreams["b"].hold.clear()
        endless = asyncio.create_task(it.call(CALL, OTHER))
        while not it.upstreams["b"].calls:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await drain_envoy(it.folder / "envoy.admin.sock", 0.5)
        assert time.monotonic() - began >= 0.5
        endless.cancel()

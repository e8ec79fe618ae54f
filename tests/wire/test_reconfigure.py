"""Limits that change while calls run, as Ray Serve changes them without a restart."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire.host import WireSettings
from tests.support.wire_rig import UNARY, Peer, until


class Crowd:
    """Handlers, sync and async, that count themselves and wait."""

    def __init__(self) -> None:
        self.running = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def _count(self, change: int) -> None:
        with self._lock:
            self.running += change

    async def on_the_loop(self, request: Int32Value) -> StringValue:
        self._count(1)
        while not self.go.is_set():
            await asyncio.sleep(0.001)
        self._count(-1)
        return StringValue()

    def in_a_thread(self, request: Int32Value) -> StringValue:
        self._count(1)
        self.go.wait(10)
        self._count(-1)
        return StringValue()


@pytest.mark.parametrize("kind", ["on_the_loop", "in_a_thread"])
async def test_a_higher_limit_admits_queued_calls_and_a_lower_one_holds_them_back(kind: str, serve: Any) -> None:
    crowd = Crowd()
    settings = WireSettings(max_ongoing_requests=1)
    server = serve(Join=(UNARY, getattr(crowd, kind)), settings=settings)
    peers = [Peer(server) for _ in range(4)]
    for peer in peers:
        peer.call("Join", Int32Value())
    await until(lambda: crowd.running == 1)
    assert server.host.count_queued() == 3
    server.host.reconfigure(replace(settings, max_ongoing_requests=3))
    await until(lambda: crowd.running == 3)
    assert server.host.count_queued() == 1
    server.host.reconfigure(replace(settings, max_ongoing_requests=2))
    peers.append(Peer(server))
    peers[-1].call("Join", Int32Value())
    assert (crowd.running, server.host.ongoing, server.host.count_queued()) == (3, 3, 2)
    crowd.go.set()
    for peer in peers:
        assert (await peer.answered())["grpc-status"] == "0"
    await until(lambda: not server.host.ongoing)

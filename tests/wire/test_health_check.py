"""Envoy's health check: answered, and not counted as a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._replica_protocol import HEALTH_CHECK_PATH, HEALTH_CHECK_RESPONSE
from sdk._wire.host import WireSettings
from sdk._wire.idle_reaper import IDLE_TIMEOUT_S
from tests.support.wire_rig import UNARY, Peer


async def echo(request: Int32Value) -> StringValue:
    return StringValue(value=str(request.value))


async def never(request: Int32Value) -> StringValue:
    await asyncio.Event().wait()
    return StringValue()


def ask(peer: Peer, path: str = HEALTH_CHECK_PATH) -> bytes:
    peer.transport.chunks.clear()
    peer.connection.data_received(f"GET {path} HTTP/1.1\r\nhost: replica\r\nuser-agent: Envoy/HC\r\n\r\n".encode())
    return peer.transport.written


async def test_each_check_is_answered_and_not_counted(serve: Any) -> None:
    server = serve(Get=(UNARY, echo))
    peer = Peer(server)
    assert [ask(peer) for _ in range(3)] == [HEALTH_CHECK_RESPONSE] * 3
    assert (server.host.received, server.host.ongoing) == (0, 0)
    peer.call("Get", Int32Value(value=7))
    assert (await peer.answered())["grpc-status"] == "0"
    assert server.host.received == 1


async def test_a_replica_without_room_for_calls_is_healthy(serve: Any) -> None:
    server = serve(settings=WireSettings(max_ongoing_requests=1, max_queued_requests=0), Get=(UNARY, never))
    Peer(server).call("Get", Int32Value())
    assert server.host.ongoing == 1
    assert ask(Peer(server)) == HEALTH_CHECK_RESPONSE


async def test_a_connection_with_health_checks_is_not_idle(serve: Any) -> None:
    server = serve(Get=(UNARY, echo))
    asked, silent = Peer(server), Peer(server)
    for second in range(0, int(IDLE_TIMEOUT_S) + 100, 60):
        if not asked.transport.closed:
            ask(asked)
        server.reaper.reap(float(second))
    assert silent.transport.closed
    assert not asked.transport.closed


@pytest.mark.parametrize("path", ["/", HEALTH_CHECK_PATH + "/x", "/t.T/Get"])
async def test_other_paths_are_not_answered(path: str, serve: Any) -> None:
    peer = Peer(serve(Get=(UNARY, echo)))
    assert ask(peer, path).startswith(b"HTTP/1.1 405 ")
    assert peer.transport.ended

"""The wire server behind a real Envoy: clients that cancel, replicas that leave, and very many calls at one time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import re
import signal
import socket
import sys
import termios
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._replica_protocol import SHUTTING_DOWN
from sdk._wire.server import WireServer
from sdk._xds.open_files import max_connections
from sdk._xds.snapshot import Endpoint
from sdk.service import Cardinality, Method, MethodBinding
from tests.support.envoy_rig import Rig, rig
from tests.support.loops import PATIENCE_S
from tests.support.raw_http2 import connect
from tests.support.wire_rig import until

SERVICE = "t.T"
FLOOD = b"\x08\x01\x12" + b"\xff\xff\x03" + b"x" * 65535  # a known field and an unknown one


class Replica:
    """Wire server as an upstream of the rig."""

    def __init__(self, kind: str, **handlers: Any) -> None:
        self.kind = kind
        self.server = WireServer(
            MethodBinding(
                Method(name, name, f"/{SERVICE}/{name}", Cardinality.STREAM_STREAM, Int32Value, StringValue), handler
            )
            for name, handler in handlers.items()
        )

    async def start(self) -> None:
        port = await self.server.listen("127.0.0.1")
        socket = await self.server.listen_locally() if self.kind == "unix" else ""
        self.endpoint = Endpoint("replica", "127.0.0.1", port, socket=socket)


async def publish(it: Rig, replica: Replica) -> None:
    await replica.start()
    it.upstreams["replica"] = replica  # type: ignore[assignment]  # the rig wants its endpoint only
    await it.publish({"app": {"T": ([SERVICE], ["replica"])}})


def end(call: Any) -> tuple[grpc.StatusCode, str]:
    """Read a call of the blocking client to its end, and return its status."""
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass
    return call.code(), call.details()


async def flood(call: Any) -> None:
    """Send messages until the call ends."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
        while True:
            await call.write(FLOOD)


async def full(replica: Replica) -> None:
    """Wait until all buffers between the client and a handler that does not read are full."""
    before = unread = 0
    while unread < 100_000 or before != unread:
        await asyncio.sleep(0.2)
        sockets = [connection.unread_socket for connection in replica.server.reaper.connections]
        before, unread = unread, sum(bytes_unread(descriptor) for descriptor in sockets if descriptor is not None)


def bytes_unread(descriptor: int) -> int:
    buffer = bytearray(4)
    fcntl.ioctl(descriptor, termios.FIONREAD, buffer)
    return int.from_bytes(buffer, sys.byteorder)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("answers", [True, False])
async def test_a_cancellation_overtakes_unread_messages(kind: str, answers: bool) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def never_reads(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
        try:
            began.set()
            if answers:
                yield StringValue(value="first")
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with rig() as it:
        replica = Replica(kind, NeverReads=never_reads)
        await publish(it, replica)
        call = it.channel.stream_stream(f"/{SERVICE}/NeverReads")(wait_for_ready=True)
        writing = asyncio.create_task(flood(call))
        await asyncio.wait_for(began.wait(), PATIENCE_S)
        if answers:
            assert StringValue.FromString(await call.read()).value == "first"
        await full(replica)
        call.cancel()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        await writing
        assert replica.server.host.ongoing == 0
        await replica.server.drain(quiet_s=0, grace_s=0)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_that_still_sends_gets_the_status_of_a_leaving_replica(kind: str, answers: bool) -> None:
    async def reads(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
        if answers:
            yield StringValue(value="first")
        async for _ in requests:
            pass

    async with rig() as it:
        replica = Replica(kind, Reads=reads)
        await publish(it, replica)
        # The grpc.aio client itself ends with INTERNAL if it can't send a message because the call is over.
        channel = grpc.insecure_channel(f"127.0.0.1:{it.port}")
        method = channel.stream_stream(f"/{SERVICE}/Reads")
        calls = [method(itertools.repeat(FLOOD), wait_for_ready=True) for _ in range(20)]
        while replica.server.host.ongoing < len(calls):
            await asyncio.sleep(0.01)
        await replica.server.drain(quiet_s=0, grace_s=0, linger_s=5)
        connections = list(replica.server.reaper.connections)
        for connection in connections:  # as the kernel does when the process ends
            connection.abort()
        ends = {await asyncio.to_thread(end, call) for call in calls}
        await asyncio.to_thread(channel.close)
        assert ends == {(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)}
        assert not connections, "all connections are closed"


class Unary(Replica):
    """A replica with a unary method; ``answered`` counts its calls."""

    def __init__(self) -> None:
        self.kind, self.answered = "unix", 0
        path = f"/{SERVICE}/Unary"
        method = Method("Unary", "Unary", path, Cardinality.UNARY_UNARY, Int32Value, StringValue)
        self.server = WireServer([MethodBinding(method, self.answer)])
        self.path = path

    async def answer(self, request: Int32Value) -> StringValue:
        self.answered += 1
        return StringValue()


def stats(it: Rig, *names: str) -> list[int]:
    """Return Envoy's statistics whose names end so; this does without the event loop."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(it.folder / "envoy.admin.sock"))
        admin.sendall(b"GET /stats HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
        text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
    return [sum(map(int, re.findall(rf"{re.escape(name)}: (\d+)", text))) for name in names]


async def test_a_burst_of_calls_waits_while_the_loop_of_the_replica_is_blocked() -> None:
    burst = 6_000  # more than the 4,096 connections that the kernel keeps for a listener, and than may be retried
    async with rig() as it:
        replica = Unary()
        await publish(it, replica)
        async with connect(it.port) as client:
            await client.wait_answered(client.start(replica.path))
            it.process.send_signal(signal.SIGSTOP)
            for _ in range(burst):
                client.start(replica.path)
            await client.flush()
            it.process.send_signal(signal.SIGCONT)
            received, waiting, connected = 0, burst, 0
            # The loop is blocked here, and with it the replica, until each call has a connection or has failed.
            while received < burst or (waiting >= burst and connected < min(burst, max_connections())):
                time.sleep(0.05)
                received, waiting, connected = stats(
                    it, "http.grpc.downstream_rq_total", "http.grpc.downstream_rq_active", "app#T.upstream_cx_active"
                )
            await until(lambda: len(client.answered) > burst)
        assert replica.answered == burst + 1
        await replica.server.drain(quiet_s=0, grace_s=0)


async def test_a_client_that_pauses_keeps_its_calls() -> None:
    calls = 6_000  # three frames each: more than the 10,000 that Envoy's default allows to wait for a client
    async with rig() as it:
        replica = Unary()
        await publish(it, replica)
        async with connect(it.port, is_paused=True) as client:
            for _ in range(calls):
                client.start(replica.path)
            await client.flush()
            while (answered := replica.answered) < calls:
                await until(lambda answered=answered: replica.answered > answered)  # type: ignore[misc]
            reading = asyncio.create_task(client.read())
            await until(lambda: len(client.answered) == calls or client.ended)
            assert not client.ended
            reading.cancel()
            await asyncio.wait([reading])
        await replica.server.drain(quiet_s=0, grace_s=0)

"""The wire server behind a real Envoy: clients that cancel, and replicas that leave."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import sys
import termios
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._replica_protocol import SHUTTING_DOWN
from sdk._wire.server import WireServer
from sdk._xds.snapshot import Endpoint
from sdk.service import Cardinality, Method, MethodBinding
from tests.support.envoy_rig import Rig, rig
from tests.support.loops import PATIENCE_S

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

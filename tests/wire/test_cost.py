"""The work of a call, counted and not timed: the bytecodes that run in this package, and the C functions they call.

The load of the machine does not change these numbers, so they show a change that makes calls more expensive. If the
change is worth it, write the new number down and give the reason in the commit. Write a lower one down too: otherwise
the next change could spend the gain unnoticed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

import sdk
from sdk._channel.connection import ReplicaConnection
from sdk._channel.feed import Address, State
from sdk._channel.target import Target
from sdk._web.protocols import serve_web
from sdk._wire import steps
from sdk._wire.call import Call
from sdk._wire.crash_trailers import CrashTrailers
from sdk._wire.crash_trailers_process import SLOT
from sdk.context import enter_call
from sdk.handles import HandleStream, HandleUnary, ServiceHandle
from sdk.service import Cardinality
from tests.support import virtual_time
from tests.support.cluster import ROOT
from tests.support.wire_rig import Peer, serving

PACKAGE = str(Path(sdk.__file__).parent)
MESSAGES = 200
ANSWER = StringValue(value="x")

# Bytecodes and C calls of a call, or of one more message of a stream, by Python version.
EXPECTED = {
    (3, 11): {
        "inner": 1799,
        "inner message": 210,
        "unary": 1028,
        "unary with context": 1454,
        "message out": 107,
        "message in": 289,
    },
    (3, 12): {
        "inner": 1674,
        "inner message": 197,
        "unary": 946,
        "unary with context": 1337,
        "message out": 97,
        "message in": 264,
    },
    (3, 13): {
        "inner": 1678,
        "inner message": 195,
        "unary": 957,
        "unary with context": 1348,
        "message out": 98,
        "message in": 261,
    },
}


class Counter:
    """Counts while entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Counter:
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._opcode

    def _opcode(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
        self.count += event == "opcode"
        return self._opcode

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.count += 1


async def unary(request: Int32Value) -> StringValue:
    return ANSWER


async def with_context(request: Int32Value, grpc_context: Any) -> StringValue:
    dict(grpc_context.invocation_metadata())
    grpc_context.set_trailing_metadata((("a", "b"),))
    return ANSWER


async def out(request: Int32Value) -> AsyncIterator[StringValue]:
    for _ in range(request.value):
        yield ANSWER


async def into(request: AsyncIterator[Int32Value]) -> StringValue:
    async for _ in request:
        pass
    return ANSWER


async def measure(peer: Peer, method: str, messages: list[Int32Value]) -> int:
    """Return the work of one call, from its first byte to its last."""
    with Counter() as counter:
        peer.head(method)
        for message in messages:
            peer.send(message)
        peer.end()
        while not peer.transport.chunks or not peer.transport.chunks[-1].endswith(b"request_id: made\r\n\r\n"):
            await asyncio.sleep(0)
    peer.transport.chunks.clear()
    return counter.count


class Wire:
    """The transport of one end of a connection, without a socket."""

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return SimpleNamespace(family=socket.AF_INET)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.other: Any = None

    def write(self, data: bytes) -> None:
        self.loop.call_soon(self.other.data_received, data)

    def is_closing(self) -> bool:
        return False


async def measure_inner(server: Any) -> tuple[int, int]:
    """Return the work of one call from a handler through a handle, at both ends, and of one message of a stream."""
    loop = asyncio.get_running_loop()
    ours, theirs = Wire(loop), Wire(loop)
    target = Target(("app", "D"), None, loop, "", lambda _: None)
    target.apply(State("app", "D", True, (Address("r", "", 0),)))
    (subchannel,) = target.replicas
    subchannel.loop = loop
    theirs.other = ReplicaConnection(subchannel)
    ours.other = server.new_connection()
    ours.other.connection_made(theirs)
    theirs.other.connection_made(ours)
    await theirs.other.accepted
    subchannel.release(theirs.other)
    handle: Any = ServiceHandle(None)
    handle._loop, handle._target = loop, target
    unary: Any = HandleUnary(server.routes[b"/t.T/unary"].method).__get__(handle)
    stream: Any = HandleStream(server.routes[b"/t.T/out"].method).__get__(handle)
    fields = {b"x-request-id": b"made"}
    outer = Call(server.host, ours, None, b"/o/O", list(fields.items()), fields, lambda _: None)
    enter_call(outer)
    request = Int32Value(value=1)
    await unary(request)
    for _ in range(2):  # Python 3.13 ends the first trace in a running coroutine early
        with Counter() as counter:
            await unary(request)
    streamed = []
    for number in 1, MESSAGES + 1:
        with Counter() as of_stream:
            async for _ in stream(Int32Value(value=number)):
                pass
        streamed.append(of_stream.count)
    enter_call(None)
    ours.other.connection_lost(None)
    return counter.count, (streamed[1] - streamed[0]) // MESSAGES


def count() -> dict[str, int]:
    counted: dict[str, int] = {}
    # Counted code is slow: the messages of a stream would not wait for each other.
    steps.monotonic = float  # type: ignore[attr-defined]  # returns 0.0

    async def scenario() -> None:
        async with serving() as serve:
            await measure_all(serve)

    async def measure_all(serve: Any) -> None:
        server = serve(
            unary=(Cardinality.UNARY_UNARY, unary),
            context=(Cardinality.UNARY_UNARY, with_context),
            out=(Cardinality.UNARY_STREAM, out),
            into=(Cardinality.STREAM_UNARY, into),
        )
        server.host.crash_trailers = CrashTrailers(server.host.loop, lambda packet, connections: None, bytearray(SLOT))
        peer = Peer(server)
        for _ in range(2):  # the first round includes one-time work; Python 3.12 traces no opcodes in it
            counted["inner"], counted["inner message"] = await measure_inner(server)
            counted["unary"] = await measure(peer, "unary", [Int32Value(value=1)])
            peer.connection.is_counted = False
            counted["unary, not counted"] = await measure(peer, "unary", [Int32Value(value=1)])
            peer.connection.is_counted = True
            counted["unary with context"] = await measure(peer, "context", [Int32Value(value=1)])
            less, more = [await measure(peer, "out", [Int32Value(value=n)]) for n in (1, MESSAGES + 1)]
            counted["message out"] = (more - less) // MESSAGES
            less, more = [await measure(peer, "into", [Int32Value(value=1)] * n) for n in (1, MESSAGES + 1)]
            counted["message in"] = (more - less) // MESSAGES
            counted["unary without other protocols"] = counted["unary"]
            serve_web(server)
            counted["unary"] = await measure(peer, "unary", [Int32Value(value=1)])

    virtual_time.run(scenario())  # no timer fires meanwhile
    return counted


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    # In a separate process: pytest rewrites the asserts of a package that has a plugin for it, and garbage of other
    # tests may be collected, which would be counted too.
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    result: dict[str, int] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("kind", EXPECTED[3, 11])
def test_the_work_of_a_call_has_not_changed(kind: str, counted: dict[str, int]) -> None:
    expected, steps = EXPECTED[sys.version_info[:2]][kind], counted[kind]
    assert steps <= 1.1 * expected, f"{kind}: {steps} steps, expected {expected}"
    assert steps >= 0.9 * expected, f"{kind}: only {steps} steps, expected {expected}: write the new number down"


def test_other_protocols_cost_a_call_of_grpc_nothing(counted: dict[str, int]) -> None:
    assert counted["unary"] == counted["unary without other protocols"]


def test_the_metrics_are_a_small_part_of_a_call(counted: dict[str, int]) -> None:
    counting = counted["unary"] - counted["unary, not counted"]
    assert 0 < counting <= 0.07 * counted["unary"], f"{counting} of {counted['unary']} steps count the call"


if __name__ == "__main__":
    print(json.dumps(count()))

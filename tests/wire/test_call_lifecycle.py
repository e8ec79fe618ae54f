"""The life of a call as a state machine: for all events in any order, it ends once and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sdk import RpcError
from sdk._wire.call import CANCEL_AGAIN_S
from sdk._wire.connection import Connection
from sdk._wire.frames import pack_prefix
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from sdk.service import Method, MethodBinding
from tests.support import loops, virtual_time
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, FakeTransport
from tests.wire.fuzzing import split_responses

METHODS = {"Unary": UNARY, "Server": SERVER, "Client": CLIENT, "Bidi": BIDI}
DEADLINE_S = 30


class Loop(virtual_time.VirtualLoop):
    """A loop with virtual time, which the test advances, and with timers that can be counted."""

    def timers(self) -> int:
        """Return the number of active timers, apart from the reaper's."""
        return sum(
            not timer.cancelled() and "IdleReaper" not in repr(timer)
            for timer in self._scheduled  # type: ignore[attr-defined]  # there is no public API
        )


class Transport(FakeTransport):
    """A transport that, once closed, is lost at the loop's next turn."""

    connection: Connection

    def close(self) -> None:
        if not self.closed:
            super().close()
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.close()


class Script:
    """A handler that follows the test's steps."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[str] = asyncio.Queue()
        self.running = 0
        self.stubborn = False  # True if the next cancellation is swallowed

    async def follow(self, requests: Any) -> AsyncIterator[StringValue]:
        self.running += 1
        try:
            while True:
                step = await self._next()
                if step == "send":
                    yield StringValue(value="x" * 100)
                elif step == "read" and hasattr(requests, "__anext__"):
                    await anext(requests, None)
                elif step == "raise":
                    raise RpcError(grpc.StatusCode.NOT_FOUND, "from the script")
                elif step == "fail":
                    raise KeyError("from the script")
                elif step == "return":
                    return
        finally:
            self.running -= 1

    async def _next(self) -> str:
        while True:
            try:
                step = await self.steps.get()
            except asyncio.CancelledError:
                if self.stubborn:
                    self.stubborn = False
                    continue
                raise
            return step

    async def stream(self, requests: Any) -> AsyncIterator[StringValue]:
        async with contextlib.aclosing(self.follow(requests)) as steps:
            async for response in steps:
                yield response

    async def single(self, requests: Any) -> StringValue:
        async with contextlib.aclosing(self.follow(requests)) as steps:
            await anext(steps, None)
        return StringValue(value="only")


class CallLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.script = Script()
        handlers = {
            name: self.script.stream if cardinality.server_streaming else self.script.single
            for name, cardinality in METHODS.items()
        }
        self.server = WireServer(
            [
                MethodBinding(Method(name, name, f"/t.T/{name}", METHODS[name], Int32Value, StringValue), handler)
                for name, handler in handlers.items()
            ],
            WireSettings(max_ongoing_requests=1, max_receive_message_length=50, error_details="none"),
        )
        self.server.host.attach(self.loop)
        self.requests = 0
        self.drain: asyncio.Task[None] | None = None
        self.in_request = False
        self._connect()

    def _connect(self) -> None:
        self.transport = Transport()
        self.connection = self.server.new_connection()
        self.transport.connection = self.connection
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.is_paused = False
        self.in_request = False

    def _turns(self, count: int = 12) -> None:
        async def turns() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def _send(self, data: bytes) -> None:
        if not self.transport.closed and self.transport.reading:
            self.loop.call_soon(self.connection.data_received, data)
        self._turns(1)

    @property
    def call(self) -> Any:
        return self.connection._call

    # -- events ------------------------------------------------------------------------------

    @precondition(lambda self: not self.in_request and self.call is None and not self.transport.closed)
    @rule(method=st.sampled_from([*METHODS, "Unknown"]), deadline=st.booleans())
    def send_head(self, method: str, deadline: bool) -> None:
        self.in_request = True
        self.requests += 1
        timeout = f"grpc-timeout: {DEADLINE_S}S\r\n" if deadline else ""
        self._send(
            f"POST /t.T/{method} HTTP/1.1\r\ncontent-type: application/grpc\r\n{timeout}"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )

    @precondition(lambda self: self.in_request)
    @rule(data=st.sampled_from([b"\0", b"\0\0\0\0", pack_prefix(0, 0), pack_prefix(0, 2) + b"\x08\1", b"\0\0\0\4\0"]))
    def send_body(self, data: bytes) -> None:
        self._send(b"%x\r\n%s\r\n" % (len(data), data))

    @precondition(lambda self: self.in_request)
    @rule()
    def flood(self) -> None:
        data = (pack_prefix(0, 50) + b"\x12\x30" + b"x" * 48) * 10_000
        self._send(b"%x\r\n%s\r\n" % (len(data), data))

    @precondition(lambda self: self.in_request)
    @rule()
    def end_request(self) -> None:
        if self.transport.reading:
            self.in_request = False
            self._send(b"0\r\n\r\n")

    @rule()
    def send_junk(self) -> None:
        self._send(b"junk")

    @rule(steps=st.lists(st.sampled_from(["send", "read", "raise", "fail", "return"]), max_size=3))
    def instruct_handler(self, steps: list[str]) -> None:
        for step in steps:
            self.script.steps.put_nowait(step)

    @rule()
    def make_handler_stubborn(self) -> None:
        self.script.stubborn = True

    @rule()
    def turn(self) -> None:
        self._turns()

    @rule()
    def disconnect(self) -> None:
        if not self.transport.closed:
            self.transport.closed = True
            self.connection.connection_lost(None)
        self._turns()
        self._check_answers()
        if not self.server.host.closing:
            self._connect()

    @rule()
    def pass_time(self) -> None:
        self.loop.pass_time(DEADLINE_S + 1)
        self._turns()

    @rule()
    def pause_or_resume_writing(self) -> None:
        if not self.transport.closed:
            self.is_paused = not self.is_paused
            (self.connection.pause_writing if self.is_paused else self.connection.resume_writing)()

    @precondition(lambda self: self.drain is None)
    @rule()
    def start_drain(self) -> None:
        self.drain = self.loop.create_task(self.server.drain(quiet_s=0, grace_s=DEADLINE_S))
        self._turns()

    # -- invariants -------------------------------------------------------------------------

    def _check_answers(self) -> None:
        answers = split_responses(self.transport.written)
        assert len(answers) <= self.requests + 1  # junk may get an HTTP error

    @invariant()
    def responses_are_well_formed_and_end_once(self) -> None:
        self._check_answers()

    @invariant()
    def ongoing_calls_are_those_with_a_handler(self) -> None:
        assert 0 <= self.server.host.ongoing <= 1
        assert self.script.running <= self.server.host.ongoing

    @invariant()
    def an_ended_call_is_read_and_has_no_timer(self) -> None:
        call = self.call
        if call is None or call.is_done():
            assert self.transport.reading
            # The handler that still runs may be that of an earlier call; only a cancelled one has a timer.
            is_its_own = call is not None and call._task is not None
            stubborn = 0 if is_its_own and not call.is_cancelled() else self.script.running
            assert self.loop.timers() == stubborn + (self.drain is not None and not self.drain.done())

    def teardown(self) -> None:
        try:
            self.script.stubborn = False
            while not self.script.steps.empty():
                self.script.steps.get_nowait()
            if not self.transport.closed:
                self.transport.closed = True
                self.connection.connection_lost(None)
            self._turns(30)
            self.loop.pass_time(CANCEL_AGAIN_S)  # a handler that swallowed its cancellation gets another one
            self._turns(30)
            assert self.server.host.ongoing == 0
            assert self.script.running == 0
            assert not self.server.host.queue
            if self.drain is not None:
                self.loop.run_until_complete(self.drain)
            assert self.server.connections == 0
            assert not asyncio.all_tasks(self.loop)
            assert self.loop.timers() == 0
        finally:
            self.server.host.executor.shutdown(wait=False)
            loops.close(self.loop)


def test_a_handler_that_swallows_its_cancellation_during_a_drain_ends_too() -> None:
    # Found by the search below: the call counted as ongoing until the process ended.
    life = CallLife()
    try:
        life.send_head("Client", deadline=False)
        life.start_drain()
        life.end_request()
        life.make_handler_stubborn()
        life.disconnect()
        assert life.script.running == life.server.host.ongoing == 1
    finally:
        life.teardown()


def test_a_call_that_ends_in_the_queue_behind_a_stubborn_handler_leaves_no_timer() -> None:
    life = CallLife()
    try:
        life.send_head("Client", deadline=False)
        life.make_handler_stubborn()
        life.disconnect()
        life.send_head("Unary", deadline=False)
        for _ in range(2):
            life.flood()
        assert life.call.is_done()
        life.an_ended_call_is_read_and_has_no_timer()
        assert life.loop.timers() == life.script.running == 1, "that of the handler that is to be cancelled again"
    finally:
        life.teardown()


TestCallLife = CallLife.TestCase
TestCallLife.settings = settings(max_examples=2 * settings.default.max_examples, stateful_step_count=30)

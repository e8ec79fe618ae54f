"""A load of unary calls and long streams at a constant rate, with a record of each: for gaps, not for throughput."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import grpc
import grpc.aio
import httpx
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from probe_pb2 import Ask, Told
from probe_pb2_grpc import AsyncProbeStub

from tests.chaos.chaos_apps import BEAT_S
from tests.chaos.slowness import Slowness
from tests.chaos.web_streams import Ending, WebStreams
from tests.support.loops import PATIENCE_S

UNARY, DOWN, BOTH, BUILT_IN = "unary", "server streaming", "bidi", "built-in"
#: The same, by a handler that calls the application through a handle.
COMPOSED, COMPOSED_BOTH = "composed unary", "composed bidi"
#: Streams of responses in other protocols than gRPC.
GRPC_WEB, JSON = "gRPC-Web stream", "JSON stream"
#: Longer than a replica's grace period.
LONG = "long stream"
# Not shared with other channels, and with a short reconnect backoff: this measures the server, not a client's backoff.
_CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
]
# Only a call that hangs takes as long: how slow calls may be is judged by the gaps between them.
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call that has ended. Times are monotonic seconds.

    Attributes:
        kind: ``"unary"``, ``"server streaming"``, ``"bidi"``, ``"built-in"`` or ``"long stream"``; ``"composed unary"``
            or ``"composed bidi"`` if a handler made it in a call of the client; ``"gRPC-Web stream"``,
            ``"JSON stream"``.
        began: When the client sent it.
        ended: When the client knew its end.
        code: Its status; ``"TRUNCATED"`` for a stream that ended with OK but is incomplete.
        details: The status's text.
        messages: Number of received messages.
        answered_by: Process id of the replica; 0 when it is not known.
        version: Version that the replica reports.
    """

    kind: str
    began: float
    ended: float
    code: str
    details: str = ""
    messages: int = 0
    answered_by: int = 0
    version: str = ""


class Load:
    """Calls an application from separate threads until it is stopped.

    Args:
        address: Address of Envoy's listener.
        application: The name of the application.
        caller: The name of the application that calls it.
        rate: Unary calls a second, over all connections; half as many are composed.
        connections: Connections for unary calls.
        streams: Streams of each kind at a time; each lasts three seconds.
    """

    def __init__(
        self, address: str, application: str, caller: str, *, rate: float = 150, connections: int = 4, streams: int = 3
    ) -> None:
        self._application = application
        self._address, self._metadata = address, (("application", application),)
        self._composed = (("application", caller),)
        self._interval, self._connections, self._streams = connections / rate, connections, streams
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=target) for target in (self._run_async, self._run_blocking)]
        #: Every call that has ended.
        self.calls: list[CallRecord] = []
        #: The load of other processes on the machine.
        self.slowness = Slowness()

    def __enter__(self) -> Load:
        self.slowness.__enter__()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.slowness.__exit__(None, None, None)

    def serving(self, since: float) -> set[int]:
        """Return the replicas that answered calls begun since the given time."""
        return {call.answered_by for call in self.calls[-2000:] if call.began >= since and call.answered_by}

    @contextlib.contextmanager
    def long_streams(self, count: int) -> Iterator[None]:
        """Hold streams that last a minute, and wait at the end of the block until they have ended."""
        with grpc.insecure_channel(self._address, options=_CHANNEL) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE_S)
            stub = AsyncProbeStub(channel)
            streams = [stub.Down(Ask(number=600), metadata=self._metadata, timeout=90) for _ in range(count)]
            began = time.monotonic()
            for stream in streams:
                next(stream)
            yield
            for stream in streams:
                error: grpc.RpcError | None = None
                try:
                    messages = sum(1 for _ in stream)
                except grpc.RpcError as raised:
                    error, messages = raised, 1
                self._note(LONG, began, error, messages)

    # -- sync client

    def _run_blocking(self) -> None:
        with grpc.insecure_channel(self._address, options=_CHANNEL) as channel:
            stub = AsyncProbeStub(channel)
            while not self._stop.wait(0.02):
                began = time.monotonic()
                try:
                    reply = stub.Unary(Ask(number=5), metadata=self._metadata, timeout=_TIMEOUT_S)
                except grpc.RpcError as error:
                    self._note(UNARY, began, error)
                else:
                    self._note(UNARY, began, None, 1, reply)

    # -- asyncio clients

    def _run_async(self) -> None:
        asyncio.run(self._call_for_ever())

    async def _call_for_ever(self) -> None:
        # Without keep-alive: an idle connection may be closed just when a request is sent.
        http = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), timeout=_TIMEOUT_S)
        async with grpc.aio.insecure_channel(self._address, options=_CHANNEL) as last, http:
            web = WebStreams(http, self._address, self._application)
            channels = [grpc.aio.insecure_channel(self._address, options=_CHANNEL) for _ in range(self._connections)]
            stubs = [AsyncProbeStub(channel) for channel in channels]
            tasks = [asyncio.create_task(self._pace(stub, 0 if n % 2 else 25)) for n, stub in enumerate(stubs)]
            for n in range(self._streams):
                tasks += [
                    asyncio.create_task(self._repeat(self._down, stubs[n % len(stubs)])),
                    asyncio.create_task(self._repeat(self._both, stubs[-1 - n % len(stubs)])),
                    asyncio.create_task(self._repeat(self._composed_both, stubs[n % len(stubs)])),
                ]
            tasks += [asyncio.create_task(self._pace(stub, 5, COMPOSED)) for stub in stubs[:2]]
            tasks.append(asyncio.create_task(self._check_health(last)))
            for kind, call in ((GRPC_WEB, web.grpc_web), (JSON, web.ndjson)):
                tasks.append(asyncio.create_task(self._repeat_web(kind, call)))
            await asyncio.gather(*tasks)
            for channel in channels:
                await channel.close()

    async def _pace(self, stub: AsyncProbeStub, milliseconds: int, kind: str = UNARY) -> None:
        running: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._stop.is_set():
            task = asyncio.create_task(self._unary(stub, milliseconds, kind))
            running.add(task)
            task.add_done_callback(running.discard)
            due += self._interval
            await asyncio.sleep(due - time.monotonic())
        await asyncio.gather(*running)

    async def _repeat(self, call: Callable[[AsyncProbeStub], Awaitable[None]], stub: AsyncProbeStub) -> None:
        while not self._stop.is_set():
            await call(stub)
            await asyncio.sleep(0.05)

    async def _unary(self, stub: AsyncProbeStub, milliseconds: int, kind: str) -> None:
        began, metadata = time.monotonic(), self._composed if kind == COMPOSED else self._metadata
        try:
            reply = await stub.Unary(Ask(number=milliseconds), metadata=metadata, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            self._note(kind, began, error)
        else:
            self._note(kind, began, None, 1, reply)

    async def _down(self, stub: AsyncProbeStub) -> None:
        wanted = 30
        call = stub.Down(Ask(number=wanted), metadata=self._metadata, timeout=_TIMEOUT_S)
        await self._take(DOWN, call, wanted)

    async def _both(self, stub: AsyncProbeStub) -> None:
        await self._converse(BOTH, stub, self._metadata)

    async def _composed_both(self, stub: AsyncProbeStub) -> None:
        await self._converse(COMPOSED_BOTH, stub, self._composed)

    async def _converse(self, kind: str, stub: AsyncProbeStub, metadata: tuple[tuple[str, str], ...]) -> None:
        wanted = 30

        async def asks() -> AsyncIterator[Ask]:
            for number in range(wanted):
                yield Ask(number=number)
                await asyncio.sleep(BEAT_S)

        await self._take(kind, stub.Both(asks(), metadata=metadata, timeout=_TIMEOUT_S), wanted)

    async def _take(self, kind: str, call: AsyncIterator[Told], wanted: int) -> None:
        began, numbers = time.monotonic(), []
        try:
            async for reply in call:
                numbers.append(reply.number)  # noqa: PERF401  # messages before an error count
        except grpc.RpcError as error:
            self._note(kind, began, error, len(numbers))
        else:
            whole = numbers == list(range(wanted))
            self._note(kind, began, None if whole else "TRUNCATED", len(numbers))

    async def _repeat_web(self, kind: str, call: Callable[[int, list[int]], Awaitable[None]]) -> None:
        wanted = 30
        while not self._stop.is_set():
            began = time.monotonic()
            numbers: list[int] = []
            code, details = "OK", ""
            try:
                await call(wanted, numbers)
            except Ending as error:
                code, details = error.code, error.details
            except httpx.TimeoutException as error:
                code, details = "DEADLINE_EXCEEDED", repr(error)
            except httpx.TransportError as error:
                code, details = "UNAVAILABLE", repr(error)
            if code == "OK" and numbers != list(range(wanted)):
                code = "TRUNCATED"
            self.calls.append(CallRecord(kind, began, time.monotonic(), code, details, len(numbers)))
            await asyncio.sleep(0.05)

    async def _check_health(self, channel: grpc.aio.Channel) -> None:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                await check(HealthCheckRequest(), timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                self._note(BUILT_IN, began, error)
            else:
                self._note(BUILT_IN, began, None, 1)
            await asyncio.sleep(0.2)

    def _note(
        self, kind: str, began: float, error: grpc.RpcError | str | None, messages: int = 0, reply: Told | None = None
    ) -> None:
        code, details = "OK", ""
        if isinstance(error, str):
            code = error
        elif error is not None:
            code, details = error.code().name, error.details() or ""
        ended = time.monotonic()
        by, version = (reply.number, reply.text) if reply is not None else (0, "")
        self.calls.append(CallRecord(kind, began, ended, code, details, messages, by, version))

"""Async and sync implementations of a service that follows the request's instructions. Replicas import this module."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, SyncProbeBase
from ray import serve
from ray.serve.handle import DeploymentHandle

from sdk import RpcError, current_context, grpc_deployment
from sdk.context import ServicerContext

#: Longer than clients accept in trailers; its end must arrive.
LONG = "ü" * 100_000 + "\nthe end: ü %41 \t."

#: The handle that each act waits for.
HANDLES = {
    "handle": "down",
    "handle in a task": "down",
    "handle of a handle": "narrow",
    "handle of a full deployment": "narrow",
}

OPTIONS: dict[str, Any] = {
    "max_ongoing_requests": 100,
    "graceful_shutdown_timeout_s": 3,
    "graceful_shutdown_wait_loop_s": 0.1,
}


class Journal:
    """Events with their times, by note. It uses the machine's clock, which other processes share."""

    def __init__(self) -> None:
        self._events: dict[str, list[tuple[str, float]]] = defaultdict(list)
        self._seen = set[tuple[str, str]]()

    def add(self, note: str, event: str) -> None:
        self._events[note].append((event, time.monotonic()))
        self._seen.add((note, event))

    def has(self, note: str, event: str) -> bool:
        return (note, event) in self._seen

    def read(self, note: str) -> str:
        return json.dumps(self._events[note])


class Crowd:
    """Counts the handlers that run at once; initial metadata notifies the client that its handler runs."""

    def __init__(self) -> None:
        self._running: set[object] = set()
        self.peak = 0

    @contextlib.contextmanager
    def joined(self, context: ServicerContext) -> Iterator[None]:
        self._running.add(context)
        self.peak = max(self.peak, len(self._running))
        context.send_initial_metadata([("running", str(len(self._running)))])
        try:
            yield
        finally:
            self._running.remove(context)


def answer(ask: Ask, context: ServicerContext) -> Any:
    """Do the act of a request; return the response message, or the last one of a stream."""
    match ask.act:
        case "raise":
            raise ValueError(f"{ask.note} is wrong: ü")
        case "raise long":
            raise ValueError(LONG)
        case "raise deep":
            return answer_deeper(ask, 300)
        case "set code and raise":
            context.set_code(grpc.StatusCode.ALREADY_EXISTS)
            context.set_details("not this")
            context.set_trailing_metadata([("kept", "yes")])
            raise ValueError("raised all the same")
        case "set OK and raise":
            context.set_code(grpc.StatusCode.OK)
            raise ValueError("raised all the same")
        case "set code":
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details("not found, adding")
            context.set_trailing_metadata([("num", "0"), ("request_id", "not the call's")])
        case "set details":
            context.set_details("fine")
        case "abort":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no", [("why", "because")])
        case "rpc error":
            raise RpcError(grpc.StatusCode.NOT_FOUND, "no user 7", [("user", "7")])
        case "wrong type":
            return Ask()
        case "none":
            return None
        case "echo":
            return Told(payload=ask.payload)
    return Told(text="done", number=ask.number)


def answer_deeper(ask: Ask, depth: int) -> Any:
    if depth:
        return answer_deeper(ask, depth - 1)
    raise ValueError("from far below")


def is_answered(ask: Ask) -> bool:
    """Return True if the answer is the last message of a stream; else the stream ends without it."""
    return ask.act in ("", "echo", "wrong type", "none")


@grpc_deployment(**OPTIONS)
class Async(AsyncProbeBase):
    def __init__(self, handles: dict[str, DeploymentHandle[Any]], sync: DeploymentHandle[Any] | None = None) -> None:
        self.handles = handles
        self.journal, self.crowd = Journal(), Crowd()

    async def Unary(self, ask: Ask, grpc_context: ServicerContext) -> Told:
        match ask.act:
            case "journal":
                return Told(text=self.journal.read(ask.note))
            case "journal of down":
                return Told(text=await self.handles["down"].read.remote(ask.note))
            case "peak":
                return Told(number=self.crowd.peak)
            case "memory":
                return Told(number=peak_memory())
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return await self._end(ask, grpc_context)

    async def Down(self, ask: Ask, grpc_context: ServicerContext) -> AsyncIterator[Told]:
        payload = bytes(ask.size)
        for i in range(ask.number):
            self.journal.add(ask.note, "message")
            yield Told(number=i, payload=payload)
        last = await self._end(ask, grpc_context)
        if is_answered(ask):
            yield last

    async def Up(self, asks: AsyncIterator[Ask], grpc_context: ServicerContext) -> Told:
        return await self._end(await self._read(asks), grpc_context)

    async def Both(self, asks: AsyncIterator[Ask], grpc_context: ServicerContext) -> AsyncIterator[Told]:
        first = await self._read(asks)
        for i in range(first.number):
            yield Told(number=i)
        last = await self._end(first, grpc_context)
        if is_answered(first):
            yield last

    async def _read(self, asks: AsyncIterator[Ask]) -> Ask:
        first = await anext(aiter(asks))
        self.journal.add(first.note, "message")
        if first.act == "read slowly":
            await until(lambda: self.journal.has(first.note, "go"))
        try:
            async for _ in asks:
                self.journal.add(first.note, "message")
        except asyncio.CancelledError:
            self.journal.add(first.note, f"cancelled: {current_context().cancelled()}")
            raise
        self.journal.add(first.note, "complete")
        return first

    async def _end(self, ask: Ask, context: ServicerContext) -> Any:
        match ask.act:
            case "go":
                self.journal.add(ask.note, "go")
            case "wait":
                self.journal.add(ask.note, "began")
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.journal.add(ask.note, "cancelled")
                    raise
            case "join":
                with self.crowd.joined(context):
                    await asyncio.Event().wait()
            case "handle that raises" | "handle that aborts":
                await self.handles["down"].fail.remote(ask.act)
            case "handle" | "handle in a task" | "handle of a full deployment" | "handle of a handle":
                waiting = self._wait_for(HANDLES[ask.act], ask.note)
                # asyncio.wait does not cancel the tasks that it awaits.
                await (asyncio.wait({asyncio.create_task(waiting)}) if ask.act == "handle in a task" else waiting)
            case "handle that streams":
                async for _ in self.handles["down"].options(stream=True).stream.remote(ask.note):
                    self.journal.add(ask.note, "message")
        return answer(ask, context)

    async def _wait_for(self, handle: str, note: str) -> None:
        await self.handles[handle].wait.remote(note)


@grpc_deployment(**OPTIONS)
class Sync(SyncProbeBase):
    def __init__(self, handles: dict[str, DeploymentHandle[Any]]) -> None:
        self.handles = handles
        self.journal, self.crowd = Journal(), Crowd()

    def Unary(self, ask: Ask, grpc_context: ServicerContext) -> Told:
        match ask.act:
            case "journal":
                return Told(text=self.journal.read(ask.note))
            case "journal of down":
                return Told(text=self.handles["down"].read.remote(ask.note).result())
            case "peak":
                return Told(number=self.crowd.peak)
            case "memory":
                return Told(number=peak_memory())
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return self._end(ask, grpc_context)

    def Down(self, ask: Ask, grpc_context: ServicerContext) -> Iterator[Told]:
        payload = bytes(ask.size)
        try:
            for i in range(ask.number):
                self.journal.add(ask.note, "message")
                yield Told(number=i, payload=payload)
        except GeneratorExit:
            self.journal.add(ask.note, "closed")
            raise
        last = self._end(ask, grpc_context)
        if is_answered(ask):
            yield last

    def Up(self, asks: Iterator[Ask], grpc_context: ServicerContext) -> Told:
        return self._end(self._read(asks), grpc_context)

    def Both(self, asks: Iterator[Ask], grpc_context: ServicerContext) -> Iterator[Told]:
        first = self._read(asks)
        for i in range(first.number):
            yield Told(number=i)
        last = self._end(first, grpc_context)
        if is_answered(first):
            yield last

    def _read(self, asks: Iterator[Ask]) -> Ask:
        first = next(asks)
        self.journal.add(first.note, "message")
        context = current_context()
        # Nothing else ends this thread when the call has ended.
        while first.act == "read slowly" and not self.journal.has(first.note, "go") and context.is_active():
            time.sleep(0.005)
        try:
            for _ in asks:
                self.journal.add(first.note, "message")
        except BaseException:
            self.journal.add(first.note, f"cancelled: {current_context().cancelled()}")
            raise
        self.journal.add(first.note, "complete")
        return first

    def _end(self, ask: Ask, context: ServicerContext) -> Any:
        match ask.act:
            case "go":
                self.journal.add(ask.note, "go")
            case "wait":
                self.journal.add(ask.note, "began")
                while context.is_active():
                    time.sleep(0.002)
                self.journal.add(ask.note, "cancelled")
            case "join":
                with self.crowd.joined(context):
                    while context.is_active():
                        time.sleep(0.002)
                    time.sleep(0.1)  # keeps running for a while after its call has ended
            case "handle that raises" | "handle that aborts":
                self.handles["down"].fail.remote(ask.act).result()
            case "handle" | "handle of a handle" | "handle of a full deployment":
                self.handles[HANDLES[ask.act]].wait.remote(ask.note).result()
            case "handle that streams":
                for _ in self.handles["down"].options(stream=True).stream.remote(ask.note):
                    self.journal.add(ask.note, "message")
        return answer(ask, context)


class Downstream:
    """The deployment that handlers call through handles."""

    def __init__(self, down: DeploymentHandle[Any] | None = None) -> None:
        self.down = down
        self.journal = Journal()

    async def read(self, note: str) -> str:
        return self.journal.read(note)

    async def fail(self, act: str) -> None:
        if act == "handle that aborts":
            raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, "said downstream", [("why", "because")])
        raise ValueError("raised downstream")

    async def wait(self, note: str) -> None:
        if self.down is not None:
            await self.down.wait.remote(note)
        self.journal.add(note, "began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.journal.add(note, "cancelled")
            raise

    async def stream(self, note: str) -> AsyncIterator[int]:
        yield 1
        yield 2
        await self.wait(note)


def application() -> Any:
    options: dict[str, Any] = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 1}
    down = serve.deployment(Downstream, name="Down", max_ongoing_requests=100, **options).bind()
    narrow = serve.deployment(Downstream, name="Narrow", max_ongoing_requests=1, max_queued_requests=1, **options).bind(
        down
    )
    handles = {"down": down, "narrow": narrow}
    return Async.bind(handles, Sync.bind(handles))


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def peak_memory(pid: int | str = "self") -> int:
    """Return a process's peak memory in bytes since the last call of this, and reset it."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(line.split()[1]) << 10

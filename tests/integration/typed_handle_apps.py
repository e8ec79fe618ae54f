"""Deployments that call one another through typed handles. A separate module, because replicas import it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import BadRequest
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle, SyncProbeBase, SyncProbeHandle
from ray import serve
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2, UserDefinedResponse, UserDefinedResponse2
from user_defined_protos_sdk import UserDefinedServiceBase

from sdk import RpcError, current_context, grpc_deployment

# Ray Serve notices a dead replica at its next health check, after ten seconds by default.
FAST = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 5, "health_check_period_s": 1}


@grpc_deployment(max_ongoing_requests=20, expose=False, **FAST)
class Inner(AsyncProbeBase):
    def __init__(self, notes: str, version: int = 0) -> None:
        self.notes = Path(notes)
        self.version = version

    async def Unary(self, request: Ask, grpc_context: Any) -> Told:
        match request.act:
            case "seen":
                reply = {
                    "request_id": grpc_context.request_id(),
                    "model": grpc_context.multiplexed_model_id(),
                    "serve": [serve.get_multiplexed_model_id(), serve.context._get_serve_request_context().request_id],
                    "user": dict(grpc_context.invocation_metadata()).get("user"),
                    "left": grpc_context.time_remaining(),
                    "peer": grpc_context.peer().partition(":")[0],
                }
                return Told(text=json.dumps(reply))
            case "packed":
                grpc_context.set_compression(grpc.Compression.Gzip)
                return Told(text=f"{grpc_context._call._encoding.decode()} {len(request.payload)} {'x' * 10_000}")
            case "fail":
                violation = BadRequest.FieldViolation(field="note", description="is wrong")
                details = [BadRequest(field_violations=[violation])]
                raise RpcError(grpc.StatusCode.NOT_FOUND, "no such", [("k", "v")], errors=details)
            case "log":
                logging.getLogger("probe").info("said %s", request.note)
            case "raise":
                raise ValueError("a value")
            case "wait":
                await self.wait(request.note)
            case "die":
                os._exit(1)
            case "once" if not (self.notes / "died").exists():
                (self.notes / "died").touch()
                os._exit(1)
            case "stop":
                raise StopIteration
            case "group":
                raise BaseExceptionGroup("two", [ValueError("a"), asyncio.CancelledError()])
            case "cancelled":
                loading = asyncio.create_task(asyncio.Event().wait())
                await asyncio.sleep(0)
                loading.cancel()
                await loading
            case "pid":
                return Told(number=os.getpid())
            case "version":
                await asyncio.sleep(0.01)
                return Told(text=str(self.version))
            case "transport":
                return Told(text=type(grpc_context._call.transport).__name__)
        return Told(text=request.note)

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        for number in range(request.number):
            yield Told(number=number, text=current_context().request_id())
        if request.act == "wait":
            await self.wait(request.note)
        if request.act == "fail":
            raise RpcError(grpc.StatusCode.DATA_LOSS, "half")

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        return Told(number=sum([request.number async for request in requests]))

    async def Both(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Told]:
        async for request in requests:
            if request.act == "wait":
                await self.wait(request.note)
            if request.act == "pid":
                yield Told(number=os.getpid())
                continue
            yield Told(number=2 * request.number, text=current_context().request_id())

    async def wait(self, note: str) -> None:
        (self.notes / f"{note} began").touch()
        try:
            await asyncio.Event().wait()
        finally:
            (self.notes / f"{note} ended").touch()


@grpc_deployment(max_ongoing_requests=20, **FAST)
class Outer(UserDefinedServiceBase):
    """Forwards requests; the origin of a message selects the way."""

    def __init__(self, inner: AsyncProbeHandle, plain: SyncProbeHandle | None = None) -> None:
        self.inner, self.plain = inner, plain

    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        ask = Ask(act=request.name.partition(" ")[0], note=request.name, number=request.num)
        match request.origin:
            case "caught":
                timeout = request.num / 1000 if ask.act == "wait" else None
                try:
                    await self.inner.Unary(ask, timeout=timeout)
                except RpcError as error:
                    found = error.find(BadRequest)
                    field = found and found.field_violations[0].field
                    return UserDefinedResponse(greeting=f"{error.code.name} {error.details} {field}")
            case "plain" if self.plain is not None:
                return UserDefinedResponse(greeting=(await self.plain.Unary(ask)).text)
            case "timed":
                return UserDefinedResponse(greeting=(await self.inner.Unary(ask, timeout=request.num / 1000)).text)
            case "packed":
                ask.payload = bytes(100_000)
                reply = await self.inner.Unary(ask, compression=grpc.Compression.Deflate)
                return UserDefinedResponse(greeting=reply.text.rstrip("x"), num=len(reply.text))
            case "given":
                pairs = [("user", "you")]
                return UserDefinedResponse(greeting=(await self.inner.Unary(ask, model_id="m2", metadata=pairs)).text)
            case "several":
                await asyncio.gather(*(self.inner.Unary(ask) for _ in range(3)), self.inner.Unary(Ask(act="fail")))
            case "again":
                idempotent = copy.copy(self.inner.Unary)
                idempotent._is_idempotent = True  # as its `idempotency_level` in the proto would
                return UserDefinedResponse(greeting=(await idempotent(ask)).text)
            case "first":
                async for reply in self.inner.Down(ask):
                    return UserDefinedResponse(num=reply.number)
        return UserDefinedResponse(greeting=(await self.inner.Unary(ask)).text)

    async def Streaming(self, request: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        ask = Ask(act=request.name.partition(" ")[0], note=request.name, number=request.num)
        if request.origin == "dies young":
            yield UserDefinedResponse()
            await asyncio.sleep(0)  # the message is written at the end of a turn of the loop
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            if "both" in request.origin:
                async for reply in self.inner.Both(Ask(number=number) for number in range(request.num)):
                    yield UserDefinedResponse(num=reply.number, greeting=reply.text)
                yield UserDefinedResponse(num=(await self.inner.Up([ask, ask])).number)
                return
            async for reply in self.inner.Down(ask):
                yield UserDefinedResponse(num=reply.number, greeting=reply.text)
        except RpcError as error:
            if "caught" not in request.origin:
                raise
            yield UserDefinedResponse(greeting=f"{error.code.name} {error.details}")

    async def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2()


class Plain(SyncProbeBase):
    """Only handles reach it: it is deployed with Ray Serve's own decorator."""

    def __init__(self, inner: AsyncProbeHandle) -> None:
        self.inner = inner

    def Unary(self, request: Ask) -> Told:
        return self.inner.Unary(request).result()


def composed(notes: str) -> Any:
    return outer(Inner.bind(notes))


def outer(inner: Any) -> Any:
    return Outer.bind(*callees(inner))


def callees(inner: Any) -> tuple[Any, Any]:
    """Return what an :class:`Outer` is bound with."""
    plain = serve.deployment(Plain, **FAST).bind(AsyncProbeHandle(inner))
    return inner, SyncProbeHandle(plain)

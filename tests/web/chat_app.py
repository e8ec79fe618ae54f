"""A service of every cardinality, whose requests say how the call is to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from chat_pb2 import Heard, Said, Upload
from chat_sdk import ChatBase
from every_field_pb2 import EveryField
from google.api.httpbody_pb2 import HttpBody  # type: ignore[import-untyped]  # it has no types
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # it has no types

from sdk import RpcError, grpc_deployment
from sdk.context import ServicerContext

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
DETAIL = RetryInfo()
DETAIL.retry_delay.seconds = 7


def check(request: Said) -> None:
    """Raise the error that a request asks for."""
    if request.raises:
        raise ValueError("a bug — ü")
    if request.code:
        errors = [DETAIL] if request.has_detail else []
        raise RpcError(CODES[request.code], f"ends with {request.code} — ü", errors=errors)


@grpc_deployment
class Chat(ChatBase):
    def __init__(self) -> None:
        self.waiting = 0

    def _heard(self, request: Said, context: Any, number: int = 0) -> Heard:
        pairs = [f"{key}: {value!r}" for key, value in context.invocation_metadata()]
        pairs += [f"identity {key}: {value!r}" for key, value in context.auth_context().items()]
        any_message = request.any if request.HasField("any") else None
        return Heard(text=request.text, number=number, request=request, metadata=pairs, any=any_message)

    async def Say(self, request: Said, grpc_context: ServicerContext) -> Heard:
        await grpc_context.send_initial_metadata([("x-first", "1"), ("x-first-bin", b"\1\2")])
        grpc_context.set_trailing_metadata([("x-last", "2"), ("x-last-bin", b"\3\4")])
        await self._wait(request)
        check(request)
        return self._heard(request, grpc_context)

    async def Look(self, request: Said, grpc_context: ServicerContext) -> Heard:
        check(request)
        return self._heard(request, grpc_context)

    async def Repeat(self, request: Said, grpc_context: ServicerContext) -> AsyncIterator[Heard]:
        grpc_context.set_trailing_metadata([("x-last", "2")])
        for number in range(request.times):
            yield self._heard(request, grpc_context, number)
        await self._wait(request)
        check(request)

    async def Collect(self, requests: AsyncIterator[Said]) -> Heard:
        texts = []
        async for request in requests:
            check(request)
            texts.append(request.text)
        return Heard(text=" ".join(texts), number=len(texts))

    async def Talk(self, requests: AsyncIterator[Said]) -> AsyncIterator[Heard]:
        async for request in requests:
            check(request)
            yield Heard(text=request.text)

    async def Fields(self, request: EveryField) -> EveryField:
        return request

    def SaySync(self, request: Said, grpc_context: ServicerContext) -> Heard:
        check(request)
        return self._heard(request, grpc_context)

    def RepeatSync(self, request: Said, grpc_context: ServicerContext) -> Iterator[Heard]:
        for number in range(request.times):
            yield self._heard(request, grpc_context, number)
        check(request)

    def CollectSync(self, requests: Iterator[Said]) -> Heard:
        texts = []
        for request in requests:
            check(request)
            texts.append(request.text)
        return Heard(text=" ".join(texts), number=len(texts))

    def TalkSync(self, requests: Iterator[Said]) -> Iterator[Heard]:
        for request in requests:
            check(request)
            yield Heard(text=request.text)

    async def Secret(self, request: Said) -> Heard:
        return Heard(text="secret")

    async def Watch(self, request: Said) -> Heard:
        return Heard(text=request.text)

    async def GetFile(self, request: Said) -> HttpBody:
        check(request)
        return HttpBody(content_type=request.author.name, data=request.text.encode() + b"\0\xff")

    async def PutFile(self, request: Upload) -> Upload:
        return request

    async def Echo(self, request: HttpBody) -> HttpBody:
        return request

    async def Download(self, request: Said) -> AsyncIterator[HttpBody]:
        for number in range(request.times):
            yield HttpBody(content_type=f"text/x-{number}", data=request.text.encode() * number)
        check(request)

    async def Join(self, requests: AsyncIterator[HttpBody]) -> Heard:
        data, kinds = b"", set()
        async for request in requests:
            data += request.data
            kinds.add(request.content_type)
        return Heard(text=data.decode(), metadata=sorted(kinds))

    async def Waiting(self, request: Said) -> Heard:
        return Heard(number=self.waiting)

    async def _wait(self, request: Said) -> None:
        if not request.waits:
            return
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1

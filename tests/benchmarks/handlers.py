"""Handlers of every server, so that only the server around them differs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from bench_pb2 import Ask, Payload

SLEEP_S = 10.0
_ZEROS = bytes(10 << 20)


def answer(ask: Ask) -> Payload:
    """Do the work of one call."""
    return Payload(greeting=f"Hello {ask.name}", data=_ZEROS[: ask.size])


class Handlers:
    """The service, as a class for Ray Serve.

    Args:
        downstream: Handle of another deployment of this class, for calls between deployments.
    """

    def __init__(self, downstream: Any = None) -> None:
        self._downstream = downstream

    async def Unary(self, request: Ask) -> Payload:
        return answer(request)

    def UnarySync(self, request: Ask) -> Payload:
        return answer(request)

    async def WithContext(self, request: Ask, grpc_context: Any) -> Payload:
        read_and_set(grpc_context)
        return answer(request)

    async def ThroughHandle(self, request: Ask) -> Payload:
        if request.count < 2:
            payload: Payload = await self.call("Unary", request)
            return payload
        payloads: list[Payload] = await asyncio.gather(*(self.call("Unary", request) for _ in range(request.count)))
        return payloads[0]

    async def Chain(self, request: Ask) -> Payload:
        if request.count < 2:
            return answer(request)
        payload: Payload = await self.call("Chain", Ask(name=request.name, count=request.count - 1))
        return payload

    async def DownloadThroughHandle(self, request: Ask) -> AsyncIterator[Payload]:
        async for payload in self.stream("Download", request):
            yield payload

    def call(self, method: str, request: Ask) -> Any:
        """Start a call of the other deployment."""
        return getattr(self._downstream, method).remote(request)

    def stream(self, method: str, request: Ask) -> Any:
        """Start a call with a response stream."""
        return getattr(self._downstream.options(stream=True), method).remote(request)

    async def Fails(self, request: Ask, grpc_context: Any) -> Payload:
        grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
        grpc_context.set_details("there is no such thing")
        return Payload()

    async def Sleeps(self, request: Ask) -> Payload:
        await asyncio.sleep(SLEEP_S)
        return Payload()

    async def Download(self, request: Ask) -> AsyncIterator[Payload]:
        for _ in range(request.count):
            yield answer(request)

    async def Upload(self, request: AsyncIterator[Payload]) -> Ask:
        count = 0
        async for _ in request:
            count += 1
        return Ask(count=count)

    async def PingPong(self, request: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        async for message in request:
            yield message


def read_and_set(context: Any) -> None:
    """Use the context as a handler does that traces its calls."""
    trace = dict(context.invocation_metadata()).get("traceparent", "none")
    context.set_trailing_metadata((("seen-traceparent", trace),))

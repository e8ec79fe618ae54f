"""The applications under test. A separate module, because replicas import it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle

from sdk import grpc_deployment

#: Seconds between two messages of a stream.
BEAT_S = 0.1


@grpc_deployment(
    num_replicas=3,
    max_ongoing_requests=1000,
    graceful_shutdown_timeout_s=8,
    graceful_shutdown_wait_loop_s=0.1,
    health_check_period_s=1,
    ray_actor_options={"num_cpus": 0},
)
class Target(AsyncProbeBase):
    """Returns its process id and version; ``number`` is milliseconds, or the number of messages of a stream."""

    def __init__(self, version: str) -> None:
        self._version = version

    def reconfigure(self, config: Any) -> None:
        self._version = config["version"]

    async def Unary(self, request: Ask) -> Told:
        await asyncio.sleep(request.number / 1000)
        return Told(text=self._version, number=os.getpid())

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        for number in range(request.number):
            yield Told(text=self._version, number=number)
            await asyncio.sleep(BEAT_S)

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        return Told(text=self._version, number=sum([request.number async for request in requests]))

    async def Both(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Told]:
        async for request in requests:
            yield Told(text=self._version, number=request.number)


@grpc_deployment(max_ongoing_requests=1000, graceful_shutdown_wait_loop_s=0.1, ray_actor_options={"num_cpus": 0})
class Caller(AsyncProbeBase):
    """Forwards each call to the application under test, through a handle.

    Args:
        application: Its name.
    """

    def __init__(self, application: str) -> None:
        self._target = AsyncProbeHandle.of_application(application)

    async def Unary(self, request: Ask) -> Told:
        return await self._target.Unary(request)

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        async for reply in self._target.Down(request):
            yield reply

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        return await self._target.Up(requests)

    async def Both(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Told]:
        async for reply in self._target.Both(requests):
            yield reply


def build(args: dict[str, str]) -> Any:
    """Build the application, for Ray Serve's config."""
    return Target.bind(args["version"])

"""A service that scales to zero; its constructor fails or waits while a file is there. Replicas import this module."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase

from sdk import grpc_deployment


@grpc_deployment(max_ongoing_requests=20, graceful_shutdown_wait_loop_s=0.1, ray_actor_options={"num_cpus": 0.1})
class Sleepy(AsyncProbeBase):
    def __init__(self, obstacle: str) -> None:
        if Path(obstacle).exists():
            raise FileNotFoundError("the model is not there")
        while Path(f"{obstacle}.slow").exists():
            time.sleep(0.01)

    async def Unary(self, request: Ask) -> Told:
        await asyncio.sleep(request.number / 1000)
        return Told(text=request.note, number=os.getpid())

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        for number in range(request.number):
            yield Told(text=request.note, number=number)

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        return Told(text="".join([request.note async for request in requests]))

    async def Both(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Told]:
        async for request in requests:
            yield Told(text=request.note)

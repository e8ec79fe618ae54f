"""Services that the integration tests deploy. A separate module, because replicas import it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator

import ray
from ray import serve
from user_defined_protos_pb2 import (
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)
from user_defined_protos_sdk import UserDefinedServiceBase, UserDefinedServiceHandle

from sdk import current_context, grpc_deployment

#: The origin of a request that kills the replica.
LAST_WORDS = "kill -9"
SYSTEM_EXIT = "sys.exit"
#: The same, through Ray.
RAY_KILL = "ray.kill"


@grpc_deployment(
    max_ongoing_requests=20,
    graceful_shutdown_timeout_s=10,
    graceful_shutdown_wait_loop_s=0.1,
    health_check_period_s=1,  # when Ray Serve notices that a replica is dead
)
class Guide(UserDefinedServiceBase):
    """The guide's service, async."""

    def __init__(self, salute: str = "Hello") -> None:
        self.salute = salute

    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        if request.num:
            await asyncio.sleep(0.001)
        if request.origin == LAST_WORDS:
            os.kill(os.getpid(), signal.SIGKILL)
        if request.origin == SYSTEM_EXIT:
            sys.exit(3)
        return UserDefinedResponse(greeting=f"{self.salute} {request.name} from {request.origin}", num=request.num * 2)

    @serve.multiplexed(max_num_models_per_replica=1)
    async def get_model(self, model_id: str) -> str:
        return f"loading model: {model_id}"

    async def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        model = await self.get_model(serve.get_multiplexed_model_id())
        return UserDefinedResponse2(greeting=f"Method2 called model, {model}")

    async def Streaming(self, request: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        for i in range(10):
            yield UserDefinedResponse(greeting=f"{i}: {self.salute} {request.name}", num=request.num * 2 + i)
            await asyncio.sleep(0.001)
            if request.origin in (LAST_WORDS, RAY_KILL):
                await asyncio.sleep(0.5)  # Envoy resets younger streams
                await self.die(request.origin)

    async def die(self, how: str) -> None:
        if how == LAST_WORDS:
            os.kill(os.getpid(), signal.SIGKILL)
        ray.kill(ray.get_runtime_context().current_actor)
        await asyncio.Event().wait()


@grpc_deployment(max_ongoing_requests=20, graceful_shutdown_wait_loop_s=0.1)
class Front(Guide):
    """Gets the answer from another deployment of the guide's service."""

    def __init__(self, guide: UserDefinedServiceHandle) -> None:
        super().__init__()
        self.guide = guide

    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        return await self.guide(request)


@grpc_deployment(max_ongoing_requests=20, graceful_shutdown_wait_loop_s=0.1)
class SyncGuide(UserDefinedServiceBase):
    """The guide's service with plain functions."""

    def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        return UserDefinedResponse(greeting=f"Hello {request.name}", num=len(current_context().request_id()))

    def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2(greeting=serve.get_multiplexed_model_id())

    def Streaming(self, request: UserDefinedMessage) -> Iterator[UserDefinedResponse]:
        for i in range(request.num or 10):
            yield UserDefinedResponse(greeting=f"{i}: Hello {request.name}", num=i)

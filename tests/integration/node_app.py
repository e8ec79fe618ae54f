"""A service that returns the node that it runs on. A separate module, because replicas import it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import ray
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase
from user_defined_protos_pb2 import (
    UserDefinedMessage,
    UserDefinedMessage2,
    UserDefinedResponse,
    UserDefinedResponse2,
)
from user_defined_protos_sdk import UserDefinedServiceBase

from sdk import grpc_deployment


@grpc_deployment(
    num_replicas=2, max_replicas_per_node=1, graceful_shutdown_wait_loop_s=0.1, ray_actor_options={"num_cpus": 1}
)
class Where(UserDefinedServiceBase):
    """One replica per node."""

    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        return UserDefinedResponse(greeting=ray.get_runtime_context().get_node_id())

    async def Multiplexing(self, request: UserDefinedMessage2) -> UserDefinedResponse2:
        return UserDefinedResponse2()

    async def Streaming(self, request: UserDefinedMessage) -> AsyncIterator[UserDefinedResponse]:
        yield UserDefinedResponse()


@grpc_deployment(
    num_replicas=2,
    max_replicas_per_node=1,
    expose=False,
    graceful_shutdown_wait_loop_s=0.1,
    ray_actor_options={"num_cpus": 0.1},
)
class Inner(AsyncProbeBase):
    """One replica per node, for calls through handles; ``number`` is milliseconds."""

    async def Unary(self, request: Ask) -> Told:
        await asyncio.sleep(request.number / 1000)
        return Told(text=ray.get_runtime_context().get_node_id())

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        yield await self.Unary(request)

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        return Told(number=len([request async for request in requests]))

    async def Both(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Told]:
        async for request in requests:
            yield await self.Unary(request)


#: An application that starts no replica before the first call.
idle = Where.options(num_replicas="auto", autoscaling_config={"min_replicas": 0, "max_replicas": 1}).bind()

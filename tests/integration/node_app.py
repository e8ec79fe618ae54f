"""A service that returns the node that it runs on. A separate module, because replicas import it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import ray
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

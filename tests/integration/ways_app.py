"""Application for the tests of deployments without ``sdk.start``. A separate module, because Ray Serve imports it."""

from __future__ import annotations

import asyncio
from typing import Any

from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedResponse

from sdk import grpc_deployment
from tests.integration import apps

QUICK = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 2}


@grpc_deployment(max_ongoing_requests=20, **QUICK)
class Slow(apps.Guide):
    """Takes ``num`` milliseconds."""

    async def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        await asyncio.sleep(request.num / 1000)
        return UserDefinedResponse(greeting=f"{self.salute} {request.name}")


@grpc_deployment(max_constructor_retry_count=1, **QUICK)
class Broken(apps.Guide):
    def __init__(self) -> None:
        raise OSError("no such model")


def build(args: dict[str, Any]) -> Any:
    return Slow.bind(args["salute"])


app = Slow.bind("Ran")
broken = Broken.bind()

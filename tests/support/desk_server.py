"""An application for the commands that call a server: one RPC of each cardinality, and some that go wrong."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

from sdk import RpcError, grpc_deployment
from tests.support.cluster import generate

PROTOS = Path(__file__).parent / "protos"
sys.path.insert(0, str(generate(PROTOS)))

from desk_pb2 import Call, Ticket  # noqa: E402  # its code is generated above
from desk_sdk import AnnexBase, DeskBase  # noqa: E402

#: Set when the handler of `Wait` was cancelled.
cancelled = threading.Event()


@grpc_deployment
class Clerk(DeskBase):
    async def Echo(self, request: Ticket) -> Ticket:
        return request

    async def Count(self, request: Ticket) -> AsyncIterator[Ticket]:
        for number in range(request.number, 0, -1):
            yield Ticket(number=number)

    async def Add(self, requests: AsyncIterator[Ticket]) -> Ticket:
        return Ticket(number=sum([request.number async for request in requests]))

    async def Talk(self, requests: AsyncIterator[Ticket]) -> AsyncIterator[Ticket]:
        async for request in requests:
            if request.title == "end":
                return
            yield Ticket(title=request.title.upper())

    async def Refuse(self, request: Ticket, grpc_context: grpc.aio.ServicerContext) -> Ticket:
        grpc_context.set_trailing_metadata([("desk-open", "no"), ("desk-key-bin", b"\x01\x02")])
        details = [BadRequest(field_violations=[{"field": "title", "description": "is empty"}]), RetryInfo()]
        raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, "come back", errors=[*details, Call(text="ring")])

    async def Wait(self, request: Ticket) -> AsyncIterator[Ticket]:
        try:
            yield Ticket(title="waiting")
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def Tell(self, request: Ticket, grpc_context: grpc.aio.ServicerContext) -> Call:
        await grpc_context.send_initial_metadata([("desk-floor", "2")])
        pairs = sorted((key, value) for key, value in grpc_context.invocation_metadata())
        left = grpc_context.time_remaining()
        known = f"within {round(left)} s" if left is not None else "at any time"
        return Call(text=" ".join(f"{key}={value!r}" for key, value in pairs) + f" {known}")


@grpc_deployment
class Porter(AnnexBase):
    async def Echo(self, request: StringValue) -> StringValue:
        return request

    async def Ring(self, request: Call) -> Call:
        return request

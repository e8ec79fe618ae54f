"""The inspector as an application, in a separate module that replicas import."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue, StringValue, UInt32Value
from inspector_pb2 import Pair, Seen, Wanted
from inspector_sdk import InspectorBase

from sdk import RpcError, grpc_deployment
from sdk.context import ServicerContext
from tests.interop.interop_service import AsyncTestService

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def metadata(pairs: Iterable[Pair]) -> list[tuple[str, str | bytes]]:
    return [(pair.key, pair.binary if pair.HasField("binary") else pair.text) for pair in pairs]


def pair(key: str, value: str | bytes) -> Pair:
    return Pair(key=key, binary=value) if isinstance(value, bytes) else Pair(key=key, text=value)


def send(wanted: Wanted, context: ServicerContext) -> StringValue:
    try:
        if wanted.initial:
            context.send_initial_metadata(metadata(wanted.initial))
        context.set_trailing_metadata(metadata(wanted.trailing))
    except ValueError as error:
        return StringValue(value=str(error))
    return StringValue()


class Inspector(InspectorBase):
    def __init__(self) -> None:
        self.echoing = 0
        self.calls: Counter[str] = Counter()

    async def Look(self, request: Empty, grpc_context: ServicerContext) -> Seen:
        return Seen(
            metadata=[pair(key, value) for key, value in grpc_context.invocation_metadata()],
            time_remaining=grpc_context.time_remaining(),
        )

    async def Send(self, request: Wanted, grpc_context: ServicerContext) -> StringValue:
        sent = send(request, grpc_context)
        if request.code:
            raise RpcError(_CODES[request.code], request.details)
        return sent

    async def SendLate(self, request: Wanted, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
        yield send(request, grpc_context)
        if request.code:
            raise RpcError(_CODES[request.code], request.details)

    async def Repeat(self, request: BytesValue) -> BytesValue:
        return request

    async def Retried(self, request: StringValue) -> UInt32Value:
        self.calls[request.value] += 1
        if self.calls[request.value] == 1:
            raise RpcError(grpc.StatusCode.UNAVAILABLE, "not yet")
        return UInt32Value(value=self.calls[request.value])

    async def First(self, request: AsyncIterator[BytesValue]) -> BytesValue:
        return await anext(request)

    async def Refuse(self, request: AsyncIterator[BytesValue]) -> BytesValue:
        await anext(request)
        raise RpcError(grpc.StatusCode.PERMISSION_DENIED, "no more, please")

    async def Echo(
        self, request: AsyncIterator[BytesValue], grpc_context: ServicerContext
    ) -> AsyncIterator[BytesValue]:
        self.echoing += 1
        try:
            await grpc_context.send_initial_metadata([("x-early", "yes")])
            async for message in request:
                yield message
        finally:
            self.echoing -= 1

    async def Echoing(self, request: Empty) -> UInt32Value:
        return UInt32Value(value=self.echoing)


@grpc_deployment(max_ongoing_requests=100, graceful_shutdown_wait_loop_s=0.1)
class InspectorAndTestService(Inspector, AsyncTestService):
    """One replica for both."""

"""``grpc.testing.TestService`` as an application of the SDK, async and sync, in a module that replicas import.

The answers are the same in both; only the handling of messages differs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import grpc
from interop_pb2 import (
    BoolValue,
    EchoStatus,
    Empty,
    Payload,
    PayloadType,
    ResponseParameters,
    SimpleRequest,
    SimpleResponse,
    StreamingInputCallRequest,
    StreamingInputCallResponse,
    StreamingOutputCallRequest,
    StreamingOutputCallResponse,
)
from interop_sdk import TestServiceBase

from sdk import grpc_deployment
from sdk.context import ServicerContext

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def begin(context: ServicerContext, *, compressed: bool = False) -> None:
    """Send and set the metadata that the client expects back."""
    if compressed:
        context.set_compression(grpc.Compression.Gzip)
    echoed = context.invocation_metadata()
    initial = [(key, value) for key, value in echoed if key == ECHO_INITIAL]
    if initial:
        context.send_initial_metadata(initial)
    context.set_trailing_metadata([(key, value) for key, value in echoed if key == ECHO_TRAILING])


def echo_status(status: EchoStatus, context: ServicerContext) -> None:
    if status.code:
        context.abort(_CODES[status.code], status.message)


def require_compressed(expected: BoolValue, context: ServicerContext) -> None:
    # No gRPC API for Python shows a handler if its request was compressed, so this reads the call behind the context.
    encoding = context._call.header(b"grpc-encoding") or "identity"
    if expected.value and encoding == "identity":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a compressed request")


def answer(request: SimpleRequest, context: ServicerContext) -> SimpleResponse:
    begin(context, compressed=request.response_compressed.value)
    require_compressed(request.expect_compressed, context)
    echo_status(request.response_status, context)
    if request.response_type != PayloadType.COMPRESSABLE:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"payload type {request.response_type} is not supported")
    return SimpleResponse(payload=Payload(body=bytes(request.response_size)))


def answer_cacheable(context: ServicerContext) -> SimpleResponse:
    context.send_initial_metadata([("cache-control", "max-age=60, public")])
    return SimpleResponse(payload=Payload(body=b"%d" % time.time_ns()))


def begin_output(request: StreamingOutputCallRequest, context: ServicerContext) -> None:
    begin(context, compressed=any(parameters.compressed.value for parameters in request.response_parameters))
    echo_status(request.response_status, context)


def output(parameters: ResponseParameters, context: ServicerContext) -> StreamingOutputCallResponse:
    if not parameters.compressed.value:
        context.disable_next_message_compression()
    return StreamingOutputCallResponse(payload=Payload(body=bytes(parameters.size)))


def seconds(parameters: ResponseParameters) -> float:
    return parameters.interval_us / 1e6


@grpc_deployment(max_ongoing_requests=100, graceful_shutdown_wait_loop_s=0.1)
class AsyncTestService(TestServiceBase):
    async def EmptyCall(self, request: Empty) -> Empty:
        return request

    async def UnaryCall(self, request: SimpleRequest, grpc_context: ServicerContext) -> SimpleResponse:
        return answer(request, grpc_context)

    async def CacheableUnaryCall(self, request: SimpleRequest, grpc_context: ServicerContext) -> SimpleResponse:
        return answer_cacheable(grpc_context)

    async def StreamingOutputCall(
        self, request: StreamingOutputCallRequest, grpc_context: ServicerContext
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        begin_output(request, grpc_context)
        for parameters in request.response_parameters:
            await asyncio.sleep(seconds(parameters))
            yield output(parameters, grpc_context)

    async def StreamingInputCall(
        self, request: AsyncIterator[StreamingInputCallRequest], grpc_context: ServicerContext
    ) -> StreamingInputCallResponse:
        begin(grpc_context)
        size = 0
        async for message in request:
            require_compressed(message.expect_compressed, grpc_context)
            size += len(message.payload.body)
        return StreamingInputCallResponse(aggregated_payload_size=size)

    async def FullDuplexCall(
        self, request: AsyncIterator[StreamingOutputCallRequest], grpc_context: ServicerContext
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        begin(grpc_context)
        async for message in request:
            echo_status(message.response_status, grpc_context)
            for parameters in message.response_parameters:
                await asyncio.sleep(seconds(parameters))
                yield output(parameters, grpc_context)

    async def HalfDuplexCall(
        self, request: AsyncIterator[StreamingOutputCallRequest], grpc_context: ServicerContext
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        begin(grpc_context)
        for message in [message async for message in request]:
            echo_status(message.response_status, grpc_context)
            for parameters in message.response_parameters:
                await asyncio.sleep(seconds(parameters))
                yield output(parameters, grpc_context)


@grpc_deployment(max_ongoing_requests=20, graceful_shutdown_wait_loop_s=0.1)
class SyncTestService(TestServiceBase):
    def EmptyCall(self, request: Empty) -> Empty:
        return request

    def UnaryCall(self, request: SimpleRequest, grpc_context: ServicerContext) -> SimpleResponse:
        return answer(request, grpc_context)

    def CacheableUnaryCall(self, request: SimpleRequest, grpc_context: ServicerContext) -> SimpleResponse:
        return answer_cacheable(grpc_context)

    def StreamingOutputCall(
        self, request: StreamingOutputCallRequest, grpc_context: ServicerContext
    ) -> Iterator[StreamingOutputCallResponse]:
        begin_output(request, grpc_context)
        for parameters in request.response_parameters:
            time.sleep(seconds(parameters))
            yield output(parameters, grpc_context)

    def StreamingInputCall(
        self, request: Iterator[StreamingInputCallRequest], grpc_context: ServicerContext
    ) -> StreamingInputCallResponse:
        begin(grpc_context)
        size = 0
        for message in request:
            require_compressed(message.expect_compressed, grpc_context)
            size += len(message.payload.body)
        return StreamingInputCallResponse(aggregated_payload_size=size)

    def FullDuplexCall(
        self, request: Iterator[StreamingOutputCallRequest], grpc_context: ServicerContext
    ) -> Iterator[StreamingOutputCallResponse]:
        begin(grpc_context)
        for message in request:
            echo_status(message.response_status, grpc_context)
            for parameters in message.response_parameters:
                time.sleep(seconds(parameters))
                yield output(parameters, grpc_context)

    def HalfDuplexCall(
        self, request: Iterator[StreamingOutputCallRequest], grpc_context: ServicerContext
    ) -> Iterator[StreamingOutputCallResponse]:
        return self.FullDuplexCall(iter(list(request)), grpc_context)

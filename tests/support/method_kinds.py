"""Handlers of every kind, which return the request's number and the call's id, and a function that calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import current_context
from sdk.context import ServicerContext
from tests.support import wire_rig
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Answer


async def unary(request: Int32Value, grpc_context: ServicerContext) -> StringValue:
    return StringValue(value=f"{request.value} {current_context().request_id()}")


def unary_sync(request: Int32Value, grpc_context: ServicerContext) -> StringValue:
    return StringValue(value=f"{request.value} {current_context().request_id()}")


async def server(request: Int32Value) -> AsyncIterator[StringValue]:
    for _ in range(2):
        yield StringValue(value=f"{request.value} {current_context().request_id()}")


def server_sync(request: Int32Value) -> Iterator[StringValue]:
    for _ in range(2):
        yield StringValue(value=f"{request.value} {current_context().request_id()}")


def server_list(request: Int32Value) -> Iterator[StringValue]:
    return iter([StringValue(value=f"{request.value} {current_context().request_id()}")] * 2)


async def server_writes(request: Int32Value, grpc_context: ServicerContext) -> None:
    for _ in range(2):
        await grpc_context.write(StringValue(value=f"{request.value} {current_context().request_id()}"))


async def client(requests: AsyncIterator[Int32Value]) -> StringValue:
    values = [request.value async for request in requests]
    return StringValue(value=f"{values[0]} {current_context().request_id()}")


def client_sync(requests: Iterator[Int32Value]) -> StringValue:
    values = [request.value for request in requests]
    return StringValue(value=f"{values[0]} {current_context().request_id()}")


async def bidi(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
    async for request in requests:
        for _ in range(2):
            yield StringValue(value=f"{request.value} {current_context().request_id()}")


def bidi_sync(requests: Iterator[Int32Value]) -> Iterator[StringValue]:
    for request in requests:
        for _ in range(2):
            yield StringValue(value=f"{request.value} {current_context().request_id()}")


HANDLERS = [
    (UNARY, unary),
    (UNARY, unary_sync),
    (SERVER, server),
    (SERVER, server_sync),
    (SERVER, server_list),
    (SERVER, server_writes),
    (CLIENT, client),
    (CLIENT, client_sync),
    (BIDI, bidi),
    (BIDI, bidi_sync),
]


async def ask(cardinality: Any, handler: Any, *interceptors: Any, **headers: str) -> Answer:
    """Return the response to a call through interceptors; its one request message is the number 7."""
    return await wire_rig.ask(handler, cardinality, interceptors, **headers)


def texts(answer: Answer) -> list[str]:
    return [StringValue.FromString(message).value for _, message in answer.messages]

"""Handlers whose context an interceptor has wrapped: they see the wrapped one, on the loop and in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import current_context
from sdk.context import ServicerContext
from tests.support.loops import PATIENCE_S
from tests.support.method_kinds import ask, texts
from tests.support.wire_rig import CLIENT, SERVER, UNARY, Peer, until

Base = grpc.aio.ServerInterceptor
LOOP = threading.get_ident()  # tests run their loop in their own thread


class Wrapped:
    """A context that an interceptor has wrapped: methods that are async in ``grpc.aio`` are async in it."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.user = "somebody"
        self.threads: list[int] = []

    @property
    def __class__(self) -> Any:
        return ServicerContext

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self.threads.append(threading.get_ident())
        await self.context.send_initial_metadata([*initial_metadata, ("by", "wrapper")])

    async def write(self, message: Any) -> None:
        await self.context.write(StringValue(value=f"{message.value} by wrapper"))

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        await self.context.abort(code, f"{details} by wrapper", trailing_metadata)

    def set_code(self, code: Any) -> None:
        self.context.set_code(code)
        self.context.set_details(f"set by wrapper for {self.user}")


class Wraps(Base):
    def __init__(self) -> None:
        self.contexts: list[Wrapped] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        kinds = ("unary", "stream")
        name = f"{kinds[handler.request_streaming]}_{kinds[handler.response_streaming]}"
        inner = getattr(handler, name)

        def wrap(context: Any) -> Wrapped:
            self.contexts.append(Wrapped(context))
            return self.contexts[-1]

        async def outer(request: Any, context: Any) -> Any:
            return await inner(request, wrap(context))

        async def outer_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for response in inner(request, wrap(context)):
                yield response

        return getattr(grpc, f"{name}_rpc_method_handler")(
            outer_stream if handler.response_streaming else outer,
            handler.request_deserializer,
            handler.response_serializer,
        )


def checked(context: Any) -> None:
    assert context is current_context()
    assert isinstance(context, ServicerContext)
    assert context.user == "somebody"
    context.user = "nobody"
    context.set_code(grpc.StatusCode.DATA_LOSS)


async def on_the_loop(request: Any, grpc_context: Any) -> StringValue:
    checked(grpc_context)
    await grpc_context.send_initial_metadata([("early", "1")])
    return StringValue(value=grpc_context.request_id())


def in_a_thread(request: Any, grpc_context: Any) -> StringValue:
    checked(grpc_context)
    grpc_context.send_initial_metadata([("early", "1")])
    return StringValue(value=grpc_context.request_id())


def reads_in_a_thread(requests: Any, grpc_context: Any) -> StringValue:
    checked(grpc_context)
    grpc_context.send_initial_metadata([("early", "1")])
    assert grpc_context.read().value == 7
    assert grpc_context.read() is grpc.aio.EOF
    return StringValue(value=grpc_context.request_id())


def yields_in_a_thread(request: Any, grpc_context: Any) -> Iterator[StringValue]:
    checked(grpc_context)
    grpc_context.send_initial_metadata([("early", "1")])
    yield StringValue(value=grpc_context.request_id())


def returns_a_coroutine(request: Any, grpc_context: Any) -> Any:
    checked(grpc_context)

    async def rest() -> StringValue:
        await grpc_context.send_initial_metadata([("early", "1")])
        return StringValue(value=grpc_context.request_id())

    return rest()


@pytest.mark.parametrize(
    ("cardinality", "handler"),
    [
        (UNARY, on_the_loop),
        (UNARY, in_a_thread),
        (CLIENT, reads_in_a_thread),
        (SERVER, yields_in_a_thread),
        (UNARY, returns_a_coroutine),
    ],
)
async def test_a_handler_has_the_context_that_an_interceptor_wrapped(cardinality: Any, handler: Any) -> None:
    wraps = Wraps()
    answer = await ask(cardinality, handler, wraps)
    assert texts(answer) == ["made"]
    assert [pair for pair in answer.head if pair[0] in ("early", "by")] == [("early", "1"), ("by", "wrapper")]
    assert answer.trailers[:2] == [("grpc-status", "15"), ("grpc-message", "set by wrapper for nobody")]
    assert wraps.contexts[0].threads == [LOOP], "async methods run on the loop"


def writes_in_a_thread(request: Any, grpc_context: Any) -> Iterator[StringValue]:
    grpc_context.write(StringValue(value="written"))
    yield StringValue(value="yielded")


async def test_a_thread_may_write_through_it() -> None:
    assert texts(await ask(SERVER, writes_in_a_thread, Wraps())) == ["written by wrapper", "yielded"]


def aborts_in_a_thread(request: Any, grpc_context: Any) -> StringValue:
    grpc_context.abort(grpc.StatusCode.NOT_FOUND, "sent")
    raise AssertionError("abort raises")


def aborts_within_a_stream(request: Any, grpc_context: Any) -> Iterator[StringValue]:
    yield StringValue(value="first")
    current_context().abort(grpc.StatusCode.NOT_FOUND, "sent")
    raise AssertionError("abort raises")


@pytest.mark.parametrize(("cardinality", "handler"), [(UNARY, aborts_in_a_thread), (SERVER, aborts_within_a_stream)])
async def test_abort_of_a_wrapped_context_ends_a_handler_in_a_thread(cardinality: Any, handler: Any) -> None:
    answer = await ask(cardinality, handler, Wraps())
    assert answer.trailers[:2] == [("grpc-status", "5"), ("grpc-message", "sent by wrapper")]


class Stuck(Wraps):
    """Wraps contexts and requests in ones that wait without end, and sets events when they begin and end."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.ended = asyncio.Event(), asyncio.Event()

    async def wait(self, *_: Any) -> None:
        self.waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def requests(self) -> AsyncIterator[Any]:
        await self.wait()
        yield None

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)

        async def outer(request: Any, context: Any) -> Any:
            wrapped = Wrapped(context)
            vars(wrapped)["send_initial_metadata"] = self.wait
            return await handler.stream_unary(self.requests(), wrapped)

        return grpc.stream_unary_rpc_method_handler(outer, handler.request_deserializer, handler.response_serializer)


def waits_for_its_context(requests: Any, grpc_context: Any) -> StringValue:
    grpc_context.send_initial_metadata([])
    return StringValue()


def waits_for_its_requests(requests: Any, grpc_context: Any) -> StringValue:
    next(requests)
    return StringValue()


@pytest.mark.parametrize("handler", [waits_for_its_context, waits_for_its_requests])
async def test_what_a_thread_waits_for_ends_with_its_call(handler: Any, serve: Any) -> None:
    stuck = Stuck()
    server = serve(interceptors=[stuck], Get=(CLIENT, handler))
    peer = Peer(server)
    peer.call("Get", Int32Value())
    await stuck.waits.wait()
    peer.connection.connection_lost(None)
    await asyncio.wait_for(stuck.ended.wait(), PATIENCE_S)
    await until(lambda: not server.host.ongoing)  # the thread has ended, too


def waits_after_the_end(requests: Any, grpc_context: Any) -> StringValue:
    while grpc_context.is_active():
        pass
    return waits_for_its_context(requests, grpc_context)


async def test_a_thread_does_not_wait_after_the_end_of_its_call(serve: Any) -> None:
    server = serve(interceptors=[Stuck()], Get=(CLIENT, waits_after_the_end))
    peer = Peer(server)
    peer.call("Get", Int32Value())
    await until(lambda: server.host.ongoing)
    peer.connection.connection_lost(None)
    await until(lambda: not server.host.ongoing)

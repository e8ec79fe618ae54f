"""Interceptors of ``grpc.aio`` around the handlers of a deployment, for all four kinds of method.

Used only where interceptors are configured: ``dispatch.py`` picks the way to answer when the server starts.
https://grpc.github.io/grpc/python/grpc_asyncio.html#grpc.aio.ServerInterceptor
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import grpc
import grpc.aio

from sdk._contract.implementations import handler_kind
from sdk._wire.answering import RequestMessages, send_response, send_stream
from sdk._wire.frames import no_message
from sdk._wire.metadata import UNIMPLEMENTED
from sdk._wire.threads import iterate_in_thread, run_in_thread
from sdk._wire.wrapped_context import LoopWaits, ThreadContext, ThreadIterator, WrappedContext
from sdk.context import context_of, current_call

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.metadata import Metadata
    from sdk._wire.route import Route
    from sdk.errors import RpcError

    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class CallDetails(NamedTuple):
    """The ``grpc.HandlerCallDetails`` that an interceptor gets; a tuple, like that of grpcio's sync server."""

    method: str
    invocation_metadata: Metadata


def intercept(routes: dict[bytes, Route], interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
    """Answer every route through interceptors, the first of them outermost."""
    handlers = {path.decode(): _innermost(route) for path, route in routes.items()}

    async def find(details: grpc.HandlerCallDetails) -> Any:
        return handlers.get(details.method)

    pipeline: Continuation = find
    for interceptor in reversed(interceptors):
        pipeline = partial(interceptor.intercept_service, cast("Any", pipeline))
    for route in routes.values():
        route.answer = partial(_answer, pipeline)


async def _answer(pipeline: Continuation, call: Call, route: Route) -> None:
    details: Any = CallDetails(route.method.path, call.metadata)
    handler = await pipeline(details)
    if handler is None:
        call.finish_with(UNIMPLEMENTED, f"the interceptors have no handler for {route.method.path}")
        return
    # As in grpc.aio, an interceptor may return a handler of another kind, such as one that aborts every method.
    behavior: Any = _Behavior(route, handler)
    messages: Any
    if handler.request_streaming:
        single = call.messages is None
        messages = (
            _OnlyMessage(behavior.decode_request(call.take_message())) if single else RequestMessages(call, behavior)
        )
    else:
        data = call.take_message() if call.messages is None else await call.next_message()
        if data is None:
            raise no_message()
        messages = behavior.decode_request(data)
    context = context_of(call)
    is_async, is_generator = handler_kind(behavior.function)
    answer = partial(behavior.function, messages, context)
    result = answer() if is_async or is_generator else await run_in_thread(call, answer)
    if isinstance(result, Awaitable):
        result = await result
    if handler.response_streaming:
        if result is not None:  # else it has sent its messages with write()
            await send_stream(call, behavior, result)
    else:
        await send_response(call, behavior, result)


class _Behavior:
    """The handler that the interceptors returned for one call, in the form of a route."""

    __slots__ = ("_route", "decode_request", "encode_response", "function")

    def __init__(self, route: Route, handler: Any) -> None:
        self._route = route
        self.decode_request: Callable[[bytes], Any] = handler.request_deserializer or _unchanged
        self.encode_response: Callable[[Any], bytes] = handler.response_serializer or _unchanged
        kinds = ("stream", "unary")
        name = f"{kinds[not handler.request_streaming]}_{kinds[not handler.response_streaming]}"
        self.function: Callable[[Any, Any], Any] = getattr(handler, name)

    def wrong_type(self, value: Any, prefix: str = "") -> RpcError:
        return self._route.wrong_type(value, prefix)


class _OnlyMessage:
    """The one request message of a call, for a handler that takes a stream; on the loop or in a thread."""

    __slots__ = ("_messages",)

    def __init__(self, message: Any) -> None:
        self._messages = iter([message])

    def __aiter__(self) -> _OnlyMessage:
        return self

    async def __anext__(self) -> Any:
        for message in self._messages:
            return message
        raise StopAsyncIteration

    def __iter__(self) -> Iterator[Any]:
        return self._messages


def _unchanged(data: Any) -> Any:
    return data


def _innermost(route: Route) -> Any:
    """Return the deployment's own handler in the form for interceptors: async, even if it runs in a thread."""
    cardinality = route.method.cardinality
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[cardinality.client_streaming, cardinality.server_streaming]
    is_async = route.is_async

    async def invoke(request: Any, context: Any) -> Any:
        call = current_call()
        is_wrapped = context is not context_of(call)
        if is_async:
            if is_wrapped:
                context = WrappedContext(call, context)
        else:
            has_own_requests = hasattr(request, "__aiter__") and not isinstance(request, RequestMessages)
            if is_wrapped or has_own_requests:
                waits = LoopWaits(call)
            if is_wrapped:
                context = ThreadContext(call, context, waits)
            if has_own_requests:
                request = ThreadIterator(request, waits)
        call.context = context  # the handler sees the interceptors' changes, by current_context() too
        arguments = {"grpc_context": context} if route.takes_context else {}
        answer = partial(route.handler, request, **arguments)
        result = answer() if is_async or route.is_generator else await run_in_thread(call, answer)
        return await result if isinstance(result, Awaitable) else result

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        responses = await invoke(request, context)
        call = current_call()
        if hasattr(responses, "__aiter__"):
            responses = aiter(responses)
        elif hasattr(responses, "__iter__"):
            responses = iterate_in_thread(call, iter(responses))
        elif responses is None and (is_async or route.takes_context):
            return
        else:
            raise route.wrong_type(responses, "a stream of ")
        try:
            async for response in responses:
                yield response
        finally:
            close = getattr(responses, "aclose", None)
            if close is not None:
                await close()

    behavior: Any = stream if cardinality.server_streaming else invoke
    return make(behavior, request_deserializer=route.decode_request, response_serializer=route.encode_response)

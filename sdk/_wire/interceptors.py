"""Interceptors of ``grpc.aio`` around the handlers of a deployment, for all four kinds of method.

What is here runs only where interceptors are configured: a route's way of answering is chosen when it is built.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import grpc
import grpc.aio

from sdk._contract.implementations import handler_kind
from sdk._wire.answering import RequestMessages, send_stream
from sdk._wire.frames import FrameError
from sdk._wire.threads import ThreadContext, ThreadIterator, iterate_in_thread, run_in_thread
from sdk.context import context_of, current_call

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.metadata import Metadata
    from sdk._wire.route import Route
    from sdk.errors import RpcError

    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]

_INTERNAL, _UNIMPLEMENTED = 13, 12


class CallDetails(NamedTuple):
    """What an interceptor is told of a call: ``grpc.HandlerCallDetails``; a tuple, as grpcio's sync one is."""

    method: str
    invocation_metadata: Metadata


def intercept(routes: dict[bytes, Route], interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
    """Have every route answered through interceptors, the first of them outermost."""
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
        call.finish_with(_UNIMPLEMENTED, f"the interceptors have no handler for {route.method.path}")
        return
    # As in grpc.aio, an interceptor may give a handler of another kind: one that aborts, for every method.
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
            raise FrameError(_INTERNAL, "the request has no message")
        messages = behavior.decode_request(data)
    context = context_of(call)
    is_async, is_generator = handler_kind(behavior.function)
    answer = partial(behavior.function, messages, context)
    result = answer() if is_async or is_generator else await run_in_thread(call, answer)
    if isinstance(result, Awaitable):
        result = await result
    if handler.response_streaming:
        if result is not None:  # else it has sent what there was to send with write()
            await send_stream(call, behavior, result)
    elif call.aborted is None:
        data, flag = behavior.encode_response(result), 0
        if call.compressor is not None:
            flag, data = await call.compressor.pack_on_loop(data)
        call.send_only(data, flag)


class _Behavior:
    """The handler that the interceptors gave for one call, as the ways to answer want it."""

    __slots__ = ("_route", "decode_request", "encode_response", "function")

    def __init__(self, route: Route, handler: Any) -> None:
        self._route = route
        self.decode_request: Callable[[bytes], Any] = handler.request_deserializer or _as_it_is
        self.encode_response: Callable[[Any], bytes] = handler.response_serializer or _as_it_is
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


def _as_it_is(data: Any) -> Any:
    return data


def _innermost(route: Route) -> Any:
    """Return the deployment's own handler as interceptors get it: async, also where it runs in a thread."""
    cardinality = route.method.cardinality
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[cardinality.client_streaming, cardinality.server_streaming]
    is_async, _ = handler_kind(route.handler)

    async def invoke(request: Any, context: Any) -> Any:
        call = current_call()
        if not is_async:
            if context is not context_of(call):
                context = ThreadContext(call, context)
            if hasattr(request, "__aiter__") and not isinstance(request, RequestMessages):
                request = ThreadIterator(call, request)
        call.context = context  # the handler sees what the interceptors made of it, by current_context() too
        arguments = {"grpc_context": context} if route.takes_context else {}
        answer = partial(route.handler, request, **arguments)
        result = answer() if is_async or route.is_generator else await run_in_thread(call, answer)
        return await result if isinstance(result, Awaitable) else result

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        responses = await invoke(request, context)
        call = current_call()
        if isinstance(responses, AsyncIterator):
            pass
        elif hasattr(responses, "__iter__"):
            responses = iterate_in_thread(call, iter(responses))
        elif responses is None and is_async:
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

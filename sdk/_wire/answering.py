"""The ways to answer a call: unary or a stream, by a handler on the loop or in a thread.

On the path of every request, and written for speed: ``dispatch.py`` picks the way for a handler once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any

from sdk._wire.threads import pump, run_in_thread
from sdk.context import context_of

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.route import Route


async def answer_unary_async(call: Call, route: Route) -> None:
    """Await a coroutine function and send its message."""
    request = route.decode_request(call.take_message()) if call.messages is None else RequestMessages(call, route)
    if route.takes_context:
        response = await route.handler(request, grpc_context=context_of(call))
    else:
        response = await route.handler(request)
    if call.compressor is not None:
        await send_response(call, route, response)
    elif call.aborted is None:
        call.send_only(route.encode_response(response))


async def answer_unary_sync(call: Call, route: Route) -> None:
    """Run a plain function in a thread and send its message."""
    response = await run_in_thread(call, partial(_invoke, call, route))
    if isinstance(response, Awaitable):  # a plain function that returns a coroutine
        response = await response
    await send_response(call, route, response)


async def send_response(call: Call, route: Route, response: Any) -> None:
    """Send the one message of a handler that has not aborted the call, compressed if the call is."""
    if call.aborted is None:
        data, flag = route.encode_response(response), 0
        if call.compressor is not None:
            flag, data = await call.compressor.compress_async(data)
        call.send_only(data, flag)


async def answer_stream_async(call: Call, route: Route) -> None:
    """Send every message of an async generator, or of what a coroutine function returns."""
    await send_stream(call, route, _invoke(call, route))


async def answer_stream_sync(call: Call, route: Route) -> None:
    """Send every message of a generator, or of what a plain function returns; it runs in a thread."""
    if route.is_generator:
        responses = _invoke(call, route)  # none of it runs before its first message is requested
    else:
        responses = await run_in_thread(call, partial(_invoke, call, route))
    await send_stream(call, route, responses)


def _invoke(call: Call, route: Route) -> Any:
    request = route.decode_request(call.take_message()) if call.messages is None else RequestMessages(call, route)
    if route.takes_context:
        return route.handler(request, grpc_context=context_of(call))
    return route.handler(request)


async def send_stream(call: Call, route: Route, responses: Any) -> None:
    """Send every message of an iterable of either kind, or of one that is awaited first."""
    if isinstance(responses, Awaitable):
        responses = await responses
        if responses is None and call.context is not None:
            return  # the handler has the context, and has sent its messages with write()
    if hasattr(responses, "__aiter__"):
        await _send_all(call, route, aiter(responses))
    elif hasattr(responses, "__iter__"):
        await pump(call, route, iter(responses))
    else:
        raise route.wrong_type(responses, "a stream of ")


async def _send_all(call: Call, route: Route, responses: AsyncIterator[Any]) -> None:
    encode = route.encode_response
    try:
        async for response in responses:
            if call.compressor is None:
                call.send(encode(response))
            else:
                flag, data = await call.compressor.compress_async(encode(response))
                call.send(data, flag)
            if not call.writable:
                await call.wait_writable()
    finally:
        close = getattr(responses, "aclose", None)
        if close is not None:
            await close()


class RequestMessages:
    """The request messages of one call: an ``AsyncIterator`` on the loop, an ``Iterator`` in a handler's thread."""

    __slots__ = ("_call", "_decode")

    def __init__(self, call: Call, route: Route) -> None:
        self._call = call
        self._decode = route.decode_request

    def __aiter__(self) -> RequestMessages:
        return self

    async def __anext__(self) -> Any:
        message = await self._call.next_message()
        if message is None:
            raise StopAsyncIteration
        return self._decode(message)

    def __iter__(self) -> RequestMessages:
        return self

    def __next__(self) -> Any:
        host = self._call.host
        if host.is_loop_thread():  # it would wait for itself, and all other calls with it
            raise RuntimeError("`for` over the requests of an async handler blocks the event loop: use `async for`")
        message = asyncio.run_coroutine_threadsafe(self._call.next_message(), host.loop).result()
        if message is None:
            raise StopIteration
        return self._decode(message)

    def is_cancelled(self) -> bool:
        """Return True once the client is gone or the deadline has passed."""
        return self._call.is_cancelled()

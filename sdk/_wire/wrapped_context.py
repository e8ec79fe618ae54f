"""The context that interceptors wrapped, for a handler, and in a thread its stream of requests.

Used only for calls whose interceptors wrap the context, or the requests of a sync handler.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from sdk.context import ServicerContext, status_code

if TYPE_CHECKING:
    import grpc

    from sdk._wire.call import Call
    from sdk.context import MetadataPairs

R = TypeVar("R")


class WrappedContext:
    """A context that an interceptor has wrapped, for a handler on the loop.

    Interceptors get status codes as ``grpc.StatusCode``, even if the handler gives a number, as ``grpc.aio`` accepts:
    those of OpenTelemetry would raise for a number.

    Args:
        call: The call.
        context: The context of the innermost interceptor.
    """

    __slots__ = ("_call", "_context")

    def __init__(self, call: Call, context: Any) -> None:
        object.__setattr__(self, "_call", call)
        object.__setattr__(self, "_context", context)

    @property  # type: ignore[misc]  # read-only
    def __class__(self) -> Any:
        # isinstance() sees the class of the wrapped context.
        return self._context.__class__

    def __reduce__(self) -> Any:
        return ServicerContext(self._call).__reduce__()  # interceptors run in this process only

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._context, name, value)

    def set_code(self, code: grpc.StatusCode | int) -> Any:
        return self._context.set_code(status_code(code))

    def abort(
        self, code: grpc.StatusCode | int, details: str = "", trailing_metadata: MetadataPairs = ()
    ) -> Awaitable[Any]:
        result: Awaitable[Any] = self._context.abort(status_code(code), details, trailing_metadata)
        return result


class LoopWaits:
    """Coroutines of interceptors that the threads of one call wait for. They run on the loop, and end with the call.

    Args:
        call: The call; its end cancels the coroutines, and the threads get ``concurrent.futures.CancelledError``, as
            from the call's own stream of requests.
    """

    def __init__(self, call: Call) -> None:
        self._loop = call.host.loop
        self._waits: set[Future[Any]] = set()
        self._is_over = not call.on_done(self._cancel)

    def wait(self, awaitable: Awaitable[R]) -> R:
        """Await on the loop, and return the result; in a handler's thread."""
        future = asyncio.run_coroutine_threadsafe(_await(awaitable), self._loop)
        self._waits.add(future)  # before the look at _is_over, which the loop sets before it cancels them
        if self._is_over:
            future.cancel()
        try:
            return future.result()
        finally:
            self._waits.discard(future)

    def _cancel(self) -> None:
        self._is_over = True
        for future in tuple(self._waits):
            future.cancel()


class ThreadContext(WrappedContext):
    """A context that an interceptor has wrapped, for a handler in a thread: its async methods block until done.

    Args:
        call: The call.
        context: The context of the innermost interceptor.
        waits: The coroutines that the call's threads wait for.
    """

    __slots__ = ("_waits",)

    def __init__(self, call: Call, context: Any, waits: LoopWaits) -> None:
        super().__init__(call, context)
        object.__setattr__(self, "_waits", waits)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._context, name)
        return functools.partial(self._call_and_wait, value) if callable(value) else value

    def abort(
        self, code: grpc.StatusCode | int, details: str = "", trailing_metadata: MetadataPairs = ()
    ) -> Awaitable[Any]:
        result: Awaitable[Any] = self._call_and_wait(super().abort, code, details, trailing_metadata)
        return result

    def _call_and_wait(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        if not isinstance(result, Awaitable) or self._call.host.is_loop_thread():
            return result
        return self._waits.wait(result)


class ThreadIterator:
    """An async iterator of an interceptor, for a handler in a thread.

    Args:
        iterator: The interceptor's requests.
        waits: The coroutines that the call's threads wait for.
    """

    __slots__ = ("_iterator", "_waits")

    def __init__(self, iterator: AsyncIterator[Any], waits: LoopWaits) -> None:
        self._iterator = aiter(iterator)
        self._waits = waits

    def __iter__(self) -> ThreadIterator:
        return self

    def __next__(self) -> Any:
        try:
            return self._waits.wait(anext(self._iterator))
        except StopAsyncIteration:
            raise StopIteration from None


async def _await(result: Awaitable[R]) -> R:
    return await result

"""Sync handlers: plain functions and generators run in the server's thread pool, and the loop never waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.route import Route
    from sdk._wire.server import WireServer

logger = logging.getLogger("sdk.wire")

R = TypeVar("R")
_END = object()

# Bytes that a sync generator may be ahead of the connection before its thread waits.
PUMP_BYTES = 1 << 16

# Seconds that a handler's thread may go on after its call has ended before that is worth a warning.
OUTLIVES_S = 1.0


async def run_in_thread(call: Call, function: Callable[[], R]) -> R:
    """Run a function in a thread, with the call's context variables, and return what it returns.

    A thread can't be interrupted. When the call is cancelled the function runs on, and keeps its place among the
    ongoing calls until it returns, so that there are never more than ``max_ongoing_requests`` of them. When that takes
    long it is logged.
    """
    future = call.server.executor.submit(contextvars.copy_context().run, _without_stop_iteration, function)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        _keep_place(call, future)
        raise


def on_loop(server: WireServer, function: Callable[[], R]) -> R:
    """Run a function on the server's loop, from whatever thread this is, and return what it returns.

    What a context sets from a handler's thread and what ends the call on the loop then come one after the other.
    """
    if server.is_loop_thread():
        return function()
    future: Future[R] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    server.loop.call_soon_threadsafe(run)
    return future.result()


async def pump(call: Call, route: Route, iterator: Iterator[Any]) -> None:
    """Send every message of an iterator that runs in a thread, in batches, no faster than the client takes them."""
    shared = _Pump(call, route, iterator)
    future = call.server.executor.submit(contextvars.copy_context().run, shared.produce)
    try:
        while await shared.send_batch():
            pass
        await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        _keep_place(call, future)
        raise
    finally:
        shared.stop()


async def iterate_in_thread(call: Call, iterator: Iterator[Any]) -> AsyncIterator[Any]:
    """Yield the items of an iterator that runs in a thread; every item costs a hop, unlike with :func:`pump`."""
    steps = _Steps(iterator)
    try:
        while (item := await run_in_thread(call, steps.next)) is not _END:
            yield item
    finally:
        # Not awaited: the call may be over while a step still runs. Refused when the server stops, and all ends.
        with contextlib.suppress(RuntimeError):
            call.server.executor.submit(steps.close)


class _Steps:
    """Takes one item after another from an iterator, in whatever threads, with the context variables of one."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._run = contextvars.copy_context().run
        self._lock = threading.Lock()
        self._closed = False

    def next(self) -> Any:
        """Return the next item, or ``_END``."""
        with self._lock:
            return _END if self._closed else self._run(next, self._iterator, _END)

    def close(self) -> None:
        """Close a generator, when the step that runs is over."""
        with self._lock:
            self._closed = True
            close = getattr(self._iterator, "close", None)
            if close is not None:
                self._run(close)


class ThreadIterator:
    """An async iterator for a handler in a thread."""

    __slots__ = ("_call", "_iterator")

    def __init__(self, call: Call, iterator: AsyncIterator[Any]) -> None:
        self._call = call
        self._iterator = aiter(iterator)

    def __iter__(self) -> ThreadIterator:
        return self

    def __next__(self) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(self._next(), self._call.server.loop).result()
        except StopAsyncIteration:
            raise StopIteration from None

    async def _next(self) -> Any:
        return await anext(self._iterator)


class ThreadContext:
    """A context that an interceptor has wrapped, for a handler in a thread: what is async in it is waited for."""

    __slots__ = ("_call", "_context")

    def __init__(self, call: Call, context: Any) -> None:
        object.__setattr__(self, "_call", call)
        object.__setattr__(self, "_context", context)

    @property  # type: ignore[misc]  # nobody is to set it
    def __class__(self) -> Any:
        # isinstance() says of it what it says of the one behind it.
        return self._context.__class__

    def __reduce__(self) -> Any:
        return self._context.__reduce__()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._context, name)
        return functools.partial(self._wait_for, value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._context, name, value)

    def _wait_for(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        server = self._call.server
        if not isinstance(result, Awaitable) or server.is_loop_thread():
            return result
        return asyncio.run_coroutine_threadsafe(_await(result), server.loop).result()


async def _await(result: Awaitable[R]) -> R:
    return await result


class _Pump:
    """What the producing thread and the loop share. The condition guards every attribute behind it."""

    def __init__(self, call: Call, route: Route, iterator: Iterator[Any]) -> None:
        self._call = call
        self._encode = route.encode_response
        self._iterator = iterator
        self._ready = asyncio.Event()
        self._condition = threading.Condition()
        self._batch: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._ended = False
        self._stopped = False

    def produce(self) -> None:
        """Take messages from the iterator until it ends or nobody wants more; in the thread."""
        call, encode = self._call, self._encode
        try:
            for response in self._iterator:
                flag, data = 0, encode(response)
                if call.compressor is not None:
                    flag, data = call.compressor.pack(data)
                with self._condition:
                    while self._bytes > PUMP_BYTES and not self._stopped:
                        self._condition.wait()
                    if self._stopped:
                        return
                    self._bytes += len(data) + 1
                    self._batch.append((flag, data))
                    if len(self._batch) == 1:
                        self._wake()
        finally:
            # A generator is closed at its next yield, so that its own cleanup runs.
            close = getattr(self._iterator, "close", None)
            try:
                if close is not None:
                    close()
            finally:
                with self._condition:
                    self._ended = True
                    self._wake()

    def _wake(self) -> None:
        self._call.server.on_loop(self._ready.set)

    async def send_batch(self) -> bool:
        """Send what is there, waiting for something first; on the loop. Returns False after the last message."""
        await self._ready.wait()
        with self._condition:
            self._ready.clear()
            batch, self._batch = self._batch, []
            ended = self._ended
        for flag, data in batch:
            self._call.send(data, flag)
        if not self._call.writable:
            await self._call.wait_writable()
        with self._condition:
            self._bytes -= sum(len(data) + 1 for _, data in batch)
            self._condition.notify()
        return not ended

    def stop(self) -> None:
        """Nobody wants more."""
        with self._condition:
            self._stopped = True
            self._condition.notify()


def _without_stop_iteration(function: Callable[[], R]) -> R:
    try:
        return function()
    except StopIteration as error:
        # A future refuses StopIteration; as in a coroutine it can only be a mistake of the handler.
        raise RuntimeError("the handler raised StopIteration") from error


def _keep_place(call: Call, future: Future[Any]) -> None:
    """Count the call as ongoing until its thread has ended, too, when it has begun."""
    if future.cancel() or future.done():
        return
    call.running += 1
    server = call.server
    warning = server.loop.call_later(OUTLIVES_S, _warn, call)

    def give_back() -> None:
        warning.cancel()
        call.running -= 1
        if not call.running:
            server.release()

    future.add_done_callback(lambda _: server.on_loop(give_back))


def _warn(call: Call) -> None:
    logger.warning(
        "%s still runs %g s after its call ended, request_id %s; its thread keeps one of the %d places "
        "(max_ongoing_requests) until it returns: a sync handler can ask grpc_context.is_active()",
        call.path.decode("latin-1"),
        OUTLIVES_S,
        call.request_id,
        call.server.settings.max_ongoing_requests,
    )

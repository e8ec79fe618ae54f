"""Sync handlers: plain functions and generators run in the host's thread pool, and the loop never waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from sdk.context import current_call

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.route import Route

logger = logging.getLogger("sdk.wire")

R = TypeVar("R")
_END = object()

# Bytes that a sync generator may be ahead of the connection before its thread waits.
PUMP_BYTES = 1 << 16

# Seconds that a handler's thread may run after the end of its call before a warning is logged.
OVERRUN_WARNING_S = 1.0


async def run_in_thread(call: Call, function: Callable[[], R]) -> R:
    """Run a function in a thread, with the call's context variables, and return its result.

    A thread can't be interrupted. If the call is cancelled, the function continues, and still counts as ongoing until
    it returns, so that there are never more than ``max_ongoing_requests`` of them. A warning is logged if that takes
    long.
    """
    future = call.host.executor.submit(contextvars.copy_context().run, _without_stop_iteration, function)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        _count_thread(call, future)
        raise


async def run_in_handler_thread(function: Callable[[], R]) -> R:
    """Run a part of an async handler in a thread of its deployment, as if the handler were a sync one.

    A call that came another way, by Ray Serve's proxy or by a test that calls the handler itself, has no such threads:
    then it is one of the loop's.
    """
    call: Any = current_call()
    if getattr(call, "host", None) is None:
        return await asyncio.to_thread(function)
    return await run_in_thread(call, function)


async def pump(call: Call, route: Route, iterator: Iterator[Any]) -> None:
    """Send every message of an iterator that runs in a thread, in batches, no faster than the client takes them."""
    shared = _Pump(call, route, iterator)
    future = call.host.executor.submit(contextvars.copy_context().run, shared.produce)
    try:
        while await shared.send_batch():
            pass
        await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        _count_thread(call, future)
        raise
    finally:
        shared.stop()


async def iterate_in_thread(call: Call, iterator: Iterator[Any]) -> AsyncIterator[Any]:
    """Yield the items of an iterator that runs in a thread; unlike with :func:`pump`, each item costs a hop."""
    steps = _ThreadSteps(iterator)
    try:
        while (item := await run_in_thread(call, steps.next)) is not _END:
            yield item
    finally:
        # Not awaited: the call may be over while a step still runs. Refused after the server has stopped.
        with contextlib.suppress(RuntimeError):
            call.host.executor.submit(steps.close)


class _ThreadSteps:
    """Takes one item after another from an iterator, in any threads, with the context variables of one."""

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
        """Close a generator once the running step is over."""
        with self._lock:
            self._closed = True
            close = getattr(self._iterator, "close", None)
            if close is not None:
                self._run(close)


class _Pump:
    """State that the producing thread and the loop share. The condition guards every attribute after it."""

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
        """Take messages from the iterator until it ends or the call does; in the thread."""
        call, encode = self._call, self._encode
        try:
            for response in self._iterator:
                flag, data = 0, encode(response)
                if call.compressor is not None:
                    flag, data = call.compressor.compress(data)
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
        self._call.host.call_soon(self._ready.set)

    async def send_batch(self) -> bool:
        """Wait for messages and send them; on the loop. Return False after the last one."""
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
        """Stop the thread at its next message: the call is over."""
        with self._condition:
            self._stopped = True
            self._condition.notify()


def _without_stop_iteration(function: Callable[[], R]) -> R:
    try:
        return function()
    except StopIteration as error:
        # A future refuses StopIteration. As in a coroutine, it is a bug of the handler.
        raise RuntimeError("the handler raised StopIteration") from error


def _count_thread(call: Call, future: Future[Any]) -> None:
    """Count the call as ongoing until its thread has ended, too, if it has begun."""
    if future.cancel() or future.done():
        return
    call.running += 1
    host = call.host
    warning = host.loop.call_later(OVERRUN_WARNING_S, _warn_overrun, call)

    def release() -> None:
        warning.cancel()
        call.end_thread()

    future.add_done_callback(lambda _: host.call_soon(release))


def _warn_overrun(call: Call) -> None:
    logger.warning(
        "%s still runs %g s after its call ended, request_id %s; its thread counts as one of the %d ongoing requests "
        "(max_ongoing_requests) until it returns: a sync handler can poll grpc_context.is_active()",
        call.path.decode("latin-1"),
        OVERRUN_WARNING_S,
        call.request_id,
        call.host.settings.max_ongoing_requests,
    )

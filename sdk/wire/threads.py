"""Sync handlers: plain functions and generators run in the server's thread pool, and the loop never waits for them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sdk.wire.call import Call
    from sdk.wire.routes import Route

logger = logging.getLogger("sdk.wire")

R = TypeVar("R")

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
        _keep_slot(call, future)
        raise


async def pump(call: Call, route: Route, iterator: Iterator[Any]) -> None:
    """Send every message of an iterator that runs in a thread, in batches, no faster than the client takes them."""
    shared = _Pump(call, route, iterator)
    future = call.server.executor.submit(contextvars.copy_context().run, shared.produce)
    try:
        while await shared.send_batch():
            pass
        await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        _keep_slot(call, future)
        raise
    finally:
        shared.stop()


class _Pump:
    """What the producing thread and the loop share. The condition guards every attribute behind it."""

    def __init__(self, call: Call, route: Route, iterator: Iterator[Any]) -> None:
        self._call = call
        self._encode = route.encode_response
        self._iterator = iterator
        self._ready = asyncio.Event()
        self._condition = threading.Condition()
        self._batch: list[bytes] = []
        self._bytes = 0
        self._ended = False
        self._stopped = False

    def produce(self) -> None:
        """Take messages from the iterator until it ends or nobody wants more; in the thread."""
        encode = self._encode
        try:
            for response in self._iterator:
                data = encode(response)
                with self._condition:
                    while self._bytes > PUMP_BYTES and not self._stopped:
                        self._condition.wait()
                    if self._stopped:
                        return
                    self._bytes += len(data) + 1
                    self._batch.append(data)
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
        for data in batch:
            self._call.send(data)
        if not self._call.writable:
            await self._call.wait_writable()
        with self._condition:
            self._bytes -= sum(map(len, batch)) + len(batch)
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


def _keep_slot(call: Call, future: Future[Any]) -> None:
    if call.slot_held and not future.cancel() and not future.done():
        call.slot_held = False
        server = call.server
        warning = server.loop.call_later(OUTLIVES_S, _warn, call)

        def give_back() -> None:
            warning.cancel()
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

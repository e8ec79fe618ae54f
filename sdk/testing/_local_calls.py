"""Calls through Ray Serve's handles to deployments in this process (``_local_app.py``).

The handles, their options and their responses are Ray Serve's own. This module has the parts below them: a router with
one replica, and the result of one call, which any thread and any event loop can wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from ray import cloudpickle
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError
from ray.serve.handle import DeploymentResponse, DeploymentResponseGenerator

from sdk.testing._serve_patches import set_request_context

if TYPE_CHECKING:
    from sdk._channel.feed import State

_END = object()


class CallTarget(Protocol):
    """The replica that answers calls through handles; implemented by ``LocalReplica`` in ``_local_app.py``."""

    application: str
    deployment: Any
    loop: asyncio.AbstractEventLoop
    children: ChildCalls
    calls: LocalCalls
    state: State

    def enter(self) -> None:
        """Mark this replica as the one whose code runs in the current context."""

    def method(self, name: str) -> Any:
        """Return the method that answers a call."""


class LocalRouter:
    """The router of a handle: sends every call to the one replica of the deployment.

    Args:
        find: Returns the replica.
    """

    def __init__(self, find: Callable[[], CallTarget]) -> None:
        self._find = find

    def state(self) -> State | None:
        """Return the state of the deployment for typed handles; None if it is not served here."""
        try:
            return self._find().state
        except KeyError:
            return None

    def running_replicas_populated(self) -> bool:
        return True

    def assign_request(self, metadata: Any, *args: Any, **kwargs: Any) -> Future[LocalResult]:
        assigned: Future[LocalResult] = Future()
        assigned.set_result(self._find().calls.start(metadata, args, kwargs))
        return assigned

    async def broadcast(self, metadata: Any, *args: Any, **kwargs: Any) -> list[LocalResult]:
        return [self._find().calls.start(metadata, args, kwargs)]

    def shutdown(self) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(None)
        return done


class LocalResult:
    """The result of one call through a handle: a value, or a stream of them.

    Args:
        loop: The event loop that the call runs on.
        metadata: Ray Serve's metadata of the request.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, metadata: Any) -> None:
        self.id = uuid.uuid4().hex
        self.metadata = metadata
        self._loop = loop
        self._outcome: Future[Any] = Future()
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    # -- for the caller: Ray Serve's response objects call these, on any loop, in any thread

    def get(self, timeout_s: float | None) -> Any:
        try:
            return self._outcome.result(timeout_s)
        except TimeoutError:
            if self._outcome.done():
                raise
            raise TimeoutError("Timed out waiting for result.") from None

    async def get_async(self) -> Any:
        # Shielded: as with Ray Serve, the call continues when its caller is cancelled.
        return await asyncio.shield(_wrapped(self._outcome))

    def __next__(self) -> Any:
        item = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        if item is _END:
            raise StopIteration
        return item

    async def __anext__(self) -> Any:
        if asyncio.get_running_loop() is self._loop:
            item = await self._next()
        else:
            item = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._next(), self._loop))
        if item is _END:
            raise StopAsyncIteration
        return item

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._outcome.add_done_callback(callback)

    def cancel(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so the call has ended
            self._loop.call_soon_threadsafe(self._cancel)

    async def _next(self) -> Any:
        item = await self._items.get()
        if item is _END:
            self._items.put_nowait(_END)  # for a second call of this after the end
            self._outcome.result()  # raises the exception of the call, if any
        return item

    # -- for the replica, on the loop

    def run(self, call: Any) -> None:
        self._task = self._loop.create_task(call)

    def _cancel(self) -> None:
        # One turn later: a task that is cancelled before its first step runs no code, and would never set the outcome.
        if self._task is not None:
            self._loop.call_soon(self._task.cancel)

    def add(self, item: Any) -> None:
        self._items.put_nowait(item)

    def succeed(self, value: Any) -> None:
        self._outcome.set_result(value)
        self._items.put_nowait(_END)

    def fail(self, error: BaseException) -> None:
        self._outcome.set_exception(error)
        self._items.put_nowait(_END)


class LocalCalls:
    """Runs a replica's calls through handles. Create it in the thread of the event loop that they run on.

    Args:
        replica: The replica.
    """

    def __init__(self, replica: CallTarget) -> None:
        self._replica = replica
        limit = replica.deployment.max_ongoing_requests
        self._slots = asyncio.Semaphore(limit)
        self._thread = threading.get_ident()
        self._waiting = 0
        self._max_waiting = replica.deployment.max_queued_requests
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix="serve-handle")
        self.running: set[LocalResult] = set()

    def start(self, metadata: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LocalResult:
        """Start a call, from any thread."""
        loop = self._replica.loop
        result = LocalResult(loop, metadata)
        if threading.get_ident() == self._thread:
            # Right away: the caller may be cancelled before the call starts.
            self._replica.children.add(metadata.internal_request_id, result)
        # In an empty context: from another process, only the data that the handle sends would arrive.
        loop.call_soon_threadsafe(self._start, result, args, kwargs, context=contextvars.Context())
        return result

    def _start(self, result: LocalResult, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._replica.children.add(result.metadata.internal_request_id, result)
        self.running.add(result)
        result.run(self._run(result, args, kwargs))

    async def _run(self, result: LocalResult, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        metadata = result.metadata
        self._replica.enter()
        set_request_context(metadata, self._replica.application, result.id)
        try:
            args = tuple([await _resolved(value) for value in args])
            kwargs = {name: await _resolved(value) for name, value in kwargs.items()}
            # Through pickle, as between processes: an object that can't be pickled fails here too, and none is shared.
            args, kwargs = cloudpickle.loads(cloudpickle.dumps((args, kwargs)))  # type: ignore[no-untyped-call]
            async with self._slot():
                value = await self._call(self._replica.method(metadata.call_method), args, kwargs, result)
        except asyncio.CancelledError:
            result.fail(RequestCancelledError(metadata.request_id))
        except BaseException as error:
            result.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            result.succeed(value)
        finally:
            self.running.discard(result)
            self._replica.children.remove(metadata.internal_request_id, result)
            self._replica.children.cancel(result.id)

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._slots.locked():
            if 0 <= self._max_waiting <= self._waiting:
                raise BackPressureError(num_queued_requests=self._waiting, max_queued_requests=self._max_waiting)
            self._waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
        else:
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _call(self, method: Any, args: Any, kwargs: Any, result: LocalResult) -> Any:
        name, streams = method.__name__ if hasattr(method, "__name__") else repr(method), result.metadata.is_streaming
        if _is_sync(method):
            loop = asyncio.get_running_loop()
            context = contextvars.copy_context()
            return await loop.run_in_executor(
                self._threads, context.run, self._call_in_thread, method, args, kwargs, result, name
            )
        value = method(*args, **kwargs)
        if inspect.isawaitable(value):
            value = await value
        if not streams:
            return _require_single_value(value, name)
        if isinstance(value, AsyncIterator):
            try:
                async for item in value:
                    result.add(item)
            finally:
                close = getattr(value, "aclose", None)
                if close is not None:
                    await close()
        elif isinstance(value, Iterator):
            for item in value:
                result.add(item)
        else:
            raise _not_a_generator(name)
        return None

    def _call_in_thread(self, method: Any, args: Any, kwargs: Any, result: LocalResult, name: str) -> Any:
        value = method(*args, **kwargs)
        if not result.metadata.is_streaming:
            return _require_single_value(value, name)
        if not isinstance(value, Iterator):
            raise _not_a_generator(name)
        for item in value:
            self._replica.loop.call_soon_threadsafe(result.add, item)
        return None

    async def stop(self) -> None:
        """Cancel the running calls."""
        for result in list(self.running):
            result.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)


class ChildCalls:
    """The running calls through handles by the request that made them, so that they can be cancelled with it.

    As in Ray Serve, cancelling a call also cancels the calls that it awaits, recursively.
    """

    def __init__(self) -> None:
        self._by_parent: dict[str, set[LocalResult]] = {}

    def add(self, parent: str, result: LocalResult) -> None:
        """Add a call under the id of the request that made it."""
        self._by_parent.setdefault(parent, set()).add(result)

    def remove(self, parent: str, result: LocalResult) -> None:
        """Remove a call that has ended."""
        results = self._by_parent.get(parent, set())
        results.discard(result)
        if not results:
            self._by_parent.pop(parent, None)

    def cancel(self, parent: str) -> None:
        """Cancel the calls of a request."""
        for result in list(self._by_parent.get(parent, ())):
            result.cancel()


async def _resolved(argument: Any) -> Any:
    """Return the value of an argument, which may be the response of another call, as in Ray Serve."""
    if isinstance(argument, DeploymentResponseGenerator):
        raise RuntimeError("streaming deployment handle results can't be passed to another handle's call")
    return await argument if isinstance(argument, DeploymentResponse) else argument


def _is_sync(method: Any) -> bool:
    return (inspect.isfunction(method) or inspect.ismethod(method)) and not (
        inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
    )


def _require_single_value(value: Any, name: str) -> Any:
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise TypeError(
            f"Method '{name}' returned a generator. You must use `handle.options(stream=True)` to call generators "
            "on a deployment."
        )
    return value


def _not_a_generator(name: str) -> TypeError:
    return TypeError(f"Called method '{name}' with `handle.options(stream=True)` but it did not return a generator.")


def _wrapped(outcome: Future[Any]) -> asyncio.Future[Any]:
    wrapped = asyncio.wrap_future(outcome)
    # The caller may be gone. Retrieve the exception, so that asyncio does not log that nobody did.
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return wrapped


def unknown_method(name: str, instance: Any) -> RayServeException:
    """Return the error for a call through a handle of a method that the deployment does not have."""
    methods = [known for known in dir(instance) if not known.startswith("__") and callable(getattr(instance, known))]
    return RayServeException(f"Tried to call a method '{name}' that does not exist. Available methods: {methods}.")

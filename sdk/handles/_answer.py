"""Answers calls that come through typed handles: what a generated base does in place of the wire server.

Handlers run as they do for a call from outside: with a gRPC context, until the deadline, the sync ones in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from sdk._backend import backend
from sdk._contract.implementations import find_implementation, generated_bases, handler_kind
from sdk._contract.responses import wrong_response
from sdk._status import STATUS_DETAILS
from sdk.context import context_of, enter_call
from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk.handles._call import InnerCall
    from sdk.service import Method

R = TypeVar("R")
_END = object()
# Ray Serve bounds the calls by the deployment's max_ongoing_requests; a thread is made when none is idle.
_THREADS = ThreadPoolExecutor(1024, thread_name_prefix="grpc-handle")
# Messages of a stream that a handler may be ahead of those that were taken.
_AHEAD = 16


@dataclass(frozen=True, slots=True)
class _Rpc:
    """One RPC of a class.

    Attributes:
        method: What the proto says of it.
        label: How messages call it, ``"Greeter.SayHello"``.
        takes_context: Whether its handler has a parameter ``grpc_context``.
    """

    method: Method
    label: str
    takes_context: bool

    def wrong_type(self, value: Any, prefix: str = "") -> RpcError:
        return wrong_response(self.method, self.label, value, prefix)

    def encode(self, message: Any) -> bytes:
        if not isinstance(message, self.method.response):
            raise self.wrong_type(message)
        data: bytes = message.SerializeToString()
        return data


async def answer_unary(implementation: Any, call: InnerCall) -> bytes:
    """Answer a call of a method that answers with one message.

    Args:
        implementation: The instance that is called.
        call: The call.

    Returns:
        The message, serialized.

    Raises:
        RpcError: The handler ended the call with a status, or the deadline has passed.
        Exception: What else the handler raised.
    """
    rpc = _rpc_of(implementation, call)

    async def answer() -> bytes:
        response = await _invoke(implementation, rpc, call)
        return b"" if call.error() else rpc.encode(response)  # whoever set a status may return anything

    task = asyncio.create_task(_entered(call, answer()))
    call.begin(task)
    try:
        await asyncio.wait({task})
        return bytes(_result(task, call))
    finally:
        call.finish()


async def answer_stream(implementation: Any, call: InnerCall) -> AsyncGenerator[bytes, None]:
    """Answer a call of a method that answers with a stream, as :func:`answer_unary` does; yields its messages."""
    rpc = _rpc_of(implementation, call)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    room = asyncio.Semaphore(_AHEAD)

    async def write(message: Any) -> None:
        data = rpc.encode(message)
        await room.acquire()
        messages.put_nowait(data)

    async def answer() -> None:
        async with contextlib.AsyncExitStack() as stack:
            async for message in await _stream(implementation, rpc, call, stack):
                await write(message)

    # In a task of its own: the handler keeps its context variables, whoever asks for the next message.
    task = asyncio.create_task(_entered(call, answer()))
    call.begin(task, write)
    task.add_done_callback(lambda _: messages.put_nowait(_END))
    try:
        while (data := await messages.get()) is not _END:
            room.release()
            yield data
        _result(task, call)
    finally:
        call.finish()


async def _entered(call: InnerCall, answer: Awaitable[Any]) -> Any:
    """Await an answer in a context in which the call is the current one, for the SDK and for Ray Serve."""
    call.request_id = call.request_id or backend().current_request_id() or str(uuid.uuid4())
    backend().carry_model_id(call.header(b"multiplexed_model_id") or "")
    enter_call(call)
    return await answer


async def _invoke(implementation: Any, rpc: _Rpc, call: InnerCall) -> Any:
    handler = getattr(implementation, rpc.method.python_name)
    try:
        request = rpc.method.request.FromString(call.request)
    except DecodeError:
        expected = rpc.method.request.DESCRIPTOR.full_name
        raise RpcError(grpc.StatusCode.INTERNAL, f"{rpc.label}: the request is not a {expected}") from None
    context = {"grpc_context": context_of(call)} if rpc.takes_context else {}
    is_async, is_generator = handler_kind(handler)
    if is_async or is_generator:
        response = handler(request, **context)  # nothing of a generator runs before its first message is asked for
    else:
        response = await _in_thread(functools.partial(handler, request, **context))
    # A plain function may return what a coroutine function made.
    return await response if isinstance(response, Awaitable) else response


async def _stream(
    implementation: Any, rpc: _Rpc, call: InnerCall, stack: contextlib.AsyncExitStack
) -> AsyncIterator[Any]:
    """Return the messages of a handler; its iterator is closed with the stack."""
    responses = await _invoke(implementation, rpc, call)
    if isinstance(responses, AsyncIterator):
        if hasattr(responses, "aclose"):
            stack.push_async_callback(responses.aclose)
        return responses
    if hasattr(responses, "__iter__"):
        return _iterated(iter(responses))
    if responses is None and (call.error() or rpc.takes_context):
        return _iterated(iter(()))  # what there was to send, it has sent with write()
    raise rpc.wrong_type(responses, "a stream of ")


def _in_thread(function: Callable[[], R]) -> asyncio.Future[R]:
    return asyncio.get_running_loop().run_in_executor(_THREADS, contextvars.copy_context().run, function)


async def _iterated(iterator: Iterator[Any]) -> AsyncIterator[Any]:
    """Yield what an iterator yields that runs in threads."""
    advance = None
    try:
        while True:
            advance = _in_thread(functools.partial(next, iterator, _END))
            message = await asyncio.shield(advance)
            if message is _END:
                return
            yield message
    finally:
        close = getattr(iterator, "close", None)
        if close is not None and advance is not None:
            # A generator that runs can't be closed: it is at its next yield.
            advance.add_done_callback(lambda done: done.cancelled() or done.exception() or close())


def _result(task: asyncio.Task[Any], call: InnerCall) -> Any:
    """Return what a task that has ended returned; what it raised, and what the handler set, decide the status."""
    error = None if task.cancelled() else task.exception()
    decided = call.error() or error
    if isinstance(decided, RpcError):
        raise _with_metadata(decided, call) from None
    if decided is not None:
        raise decided
    if task.cancelled():
        raise asyncio.CancelledError
    return task.result()


def _with_metadata(error: RpcError, call: InnerCall) -> RpcError:
    """Return an error with the metadata that the handler has set; a ``google.rpc.Status`` in it becomes ``errors``."""
    pairs = (*call.trailing, *error.trailing_metadata)
    status = next((value for key, value in pairs if key == STATUS_DETAILS), None)
    if not isinstance(status, bytes):
        return error if not call.trailing else RpcError(error.code, error.details, pairs, errors=error.errors)
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped, unused-ignore]  # it has no types, unless generated

    try:
        errors = Status.FromString(status).details
    except DecodeError:
        return RpcError(error.code, error.details, pairs)
    others = [pair for pair in pairs if pair[0] != STATUS_DETAILS]
    return RpcError(error.code, error.details, others, errors=errors)


def _rpc_of(implementation: Any, call: InnerCall) -> _Rpc:
    cls = type(implementation)
    path = call.path.decode()
    rpc = _rpcs(cls).get(path)
    if rpc is None:
        raise RpcError(grpc.StatusCode.UNIMPLEMENTED, f"deployment class {cls.__name__} has no method {path}")
    return rpc


def _rpcs(cls: Any) -> dict[str, _Rpc]:
    known: dict[str, _Rpc] | None = vars(cls).get("_grpc_inner_rpcs")
    if known is not None:
        return known
    found = {}
    for base in generated_bases(cls):
        for method in vars(base)["__grpc_shim__"].service.methods:
            implementation = find_implementation(cls, method.python_name)
            takes_context = implementation is not None and implementation.takes_context
            found[method.path] = _Rpc(method, f"{cls.__name__}.{method.python_name}", takes_context)
    cls._grpc_inner_rpcs = found
    return found

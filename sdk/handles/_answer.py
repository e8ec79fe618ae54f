"""Answer calls through typed handles, which do not pass through the wire server.

Handlers run as for a client's call: with a gRPC context, until the deadline, and sync ones in a thread.
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
from sdk._contract.implementations import find_implementation, generated_bases, handler_kind, is_generated
from sdk._contract.responses import wrong_response
from sdk._status import STATUS_DETAILS
from sdk.context import context_of, enter_call
from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk.handles._call import InnerCall
    from sdk.service import Method

R = TypeVar("R")
_END = object()
# Ray Serve limits the calls to the deployment's max_ongoing_requests; a thread is started only if none is idle.
_THREADS = ThreadPoolExecutor(1024, thread_name_prefix="grpc-handle")
# Number of response messages that a streaming handler may send before the caller has read them.
_MAX_UNREAD_MESSAGES = 16


@dataclass(frozen=True, slots=True)
class _BoundMethod:
    """One RPC of a deployment class.

    Attributes:
        method: Its definition in the proto.
        label: Its name in error messages, ``"Greeter.SayHello"``.
        takes_context: True if its handler has a parameter ``grpc_context``.
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
    """Answer a call of a method with one response message.

    Args:
        implementation: The instance of the deployment class.
        call: The call.

    Returns:
        The response message, serialized.

    Raises:
        RpcError: The handler ended the call with a status, or the deadline has passed.
        Exception: Any other exception of the handler.
    """
    rpc = _find_method(implementation, call)

    async def answer() -> bytes:
        response = await _invoke(implementation, rpc, call)
        return b"" if call.error() else rpc.encode(response)  # with an error status, the handler may return anything

    task = asyncio.create_task(_entered(call, answer()))
    call.begin(task)
    try:
        await asyncio.wait({task})
        return bytes(_result(task, call))
    finally:
        call.finish()


async def answer_stream(implementation: Any, call: InnerCall) -> AsyncGenerator[bytes, None]:
    """Answer a call of a method with a response stream; yield its messages as :func:`answer_unary` returns one."""
    rpc = _find_method(implementation, call)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    room = asyncio.Semaphore(_MAX_UNREAD_MESSAGES)

    async def write(message: Any) -> None:
        data = rpc.encode(message)
        await room.acquire()
        messages.put_nowait(data)

    async def answer() -> None:
        async with contextlib.AsyncExitStack() as stack:
            async for message in await _stream(implementation, rpc, call, stack):
                await write(message)

    # In a separate task: the handler keeps its context variables, whichever task asks for the next message.
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
    backend().propagate_model_id(call.header(b"multiplexed_model_id") or "")
    enter_call(call)
    return await answer


async def _invoke(implementation: Any, rpc: _BoundMethod, call: InnerCall) -> Any:
    handler = getattr(implementation, rpc.method.python_name)
    try:
        request = rpc.method.request.FromString(call.request)
    except DecodeError:
        expected = rpc.method.request.DESCRIPTOR.full_name
        raise RpcError(grpc.StatusCode.INTERNAL, f"{rpc.label}: the request is not a {expected}") from None
    context = {"grpc_context": context_of(call)} if rpc.takes_context else {}
    is_async, is_generator = handler_kind(handler)
    if is_async or is_generator:
        response = handler(request, **context)  # a generator runs no code before its first message is requested
    else:
        response = await _in_thread(functools.partial(handler, request, **context))
    # A plain function may return an awaitable.
    return await response if isinstance(response, Awaitable) else response


async def _stream(
    implementation: Any, rpc: _BoundMethod, call: InnerCall, stack: contextlib.AsyncExitStack
) -> AsyncIterator[Any]:
    """Return the response messages of a handler; the stack closes its iterator."""
    responses = await _invoke(implementation, rpc, call)
    if isinstance(responses, AsyncIterator):
        if hasattr(responses, "aclose"):
            stack.push_async_callback(responses.aclose)
        return responses
    if hasattr(responses, "__iter__"):
        return _iterate_in_threads(iter(responses))
    if responses is None and (call.error() or rpc.takes_context):
        return _iterate_in_threads(iter(()))  # the handler has sent its messages with write()
    raise rpc.wrong_type(responses, "a stream of ")


def _in_thread(function: Callable[[], R]) -> asyncio.Future[R]:
    return asyncio.get_running_loop().run_in_executor(_THREADS, contextvars.copy_context().run, function)


async def _iterate_in_threads(iterator: Iterator[Any]) -> AsyncIterator[Any]:
    """Yield the items of an iterator, each taken in a thread."""
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
            # A running generator can't be closed: close it at its next yield.
            advance.add_done_callback(lambda done: done.cancelled() or done.exception() or close())


def _result(task: asyncio.Task[Any], call: InnerCall) -> Any:
    """Return the result of a finished task, or raise the error that the handler set or raised."""
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
    """Return an error with the handler's trailing metadata; a ``google.rpc.Status`` in it becomes ``errors``.

    See the richer error model, https://grpc.io/docs/guides/error/.
    """
    pairs = (*call.trailing, *error.trailing_metadata)
    status = next((value for key, value in pairs if key == STATUS_DETAILS), None)
    if not isinstance(status, bytes):
        return error if not call.trailing else RpcError(error.code, error.details, pairs, errors=error.errors)
    from sdk._gen.status_pb2 import Status

    try:
        errors = Status.FromString(status).details
    except DecodeError:
        return RpcError(error.code, error.details, pairs)
    others = [pair for pair in pairs if pair[0] != STATUS_DETAILS]
    return RpcError(error.code, error.details, others, errors=errors)


def _find_method(implementation: Any, call: InnerCall) -> _BoundMethod:
    cls = type(implementation)
    path = call.path.decode()
    rpc = _bound_methods(cls).get(path)
    if rpc is None:
        raise RpcError(grpc.StatusCode.UNIMPLEMENTED, f"deployment class {cls.__name__} has no method {path}")
    return rpc


def _bound_methods(cls: Any) -> dict[str, _BoundMethod]:
    known: dict[str, _BoundMethod] | None = vars(cls).get("_grpc_inner_rpcs")
    if known is not None:
        return known
    found = {}
    for base in generated_bases(cls):
        for method in vars(base)["__grpc_shim__"].service.methods:
            implementation = find_implementation(cls, method.python_name)
            if implementation is None or is_generated(implementation.owner):
                continue  # a partial class does not implement it
            label = f"{cls.__name__}.{method.python_name}"
            found[method.path] = _BoundMethod(method, label, implementation.takes_context)
    cls._grpc_inner_rpcs = found
    return found

"""Base classes of the generated handles: typed calls from one deployment to another.

A generated handle is a class with one attribute for each RPC that takes one request message. It wraps Ray Serve's
``DeploymentHandle`` (https://docs.ray.io/en/latest/serve/model_composition.html) and uses only its public API. Ray and
Ray Serve are imported only when a call needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, TypeVar

import grpc
from google.protobuf.message import Message
from typing_extensions import TypedDict, Unpack

from sdk._backend import backend
from sdk._misuse import MISSING, missing_request, request_is_required, unexpected_keyword, unknown_method
from sdk.context import ServicerContext, current_call
from sdk.errors import RpcError
from sdk.handles._call import InnerCall

if TYPE_CHECKING:
    from sdk.context import CallState
    from sdk.service import Method, Service

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

_MODEL_ID = "multiplexed_model_id"
# Ray counts in whole milliseconds, so it may report a timeout a little early. In seconds.
_CLOCK_TOLERANCE_S = 0.01


class HandleOptions(TypedDict, total=False):
    """Keyword arguments of every call through a handle."""

    timeout: float | None
    """Seconds until the call ends with DEADLINE_EXCEEDED. The deadline of the calling handler's call always applies."""
    metadata: Sequence[tuple[str, str | bytes]]
    """Pairs for the handler, in addition to the metadata of the calling handler's call."""
    model_id: str
    """ID of a model; Ray Serve prefers a replica that has loaded it. For deployments with ``@serve.multiplexed``
    (https://docs.ray.io/en/latest/serve/model-multiplexing.html); with others, Ray Serve searches for such a replica
    in vain for up to a second."""


class ServiceHandle:
    """Base of every generated handle. Annotate a constructor's parameter with it, and pass ``bind`` an application.

    The called handler receives from the calling handler's call: request id, model id, metadata, the client's identity
    and the remaining time. If it ends with an error status, the call raises :class:`sdk.RpcError`, which becomes the
    status of the calling handler's call unless that catches it. Other exceptions arrive as through Ray Serve's handles.
    A cancelled call cancels the calls that it awaits.

    Args:
        handle: Ray Serve's ``DeploymentHandle``, as ``sdk.run`` and ``serve.get_app_handle`` return it; or the result
            of ``bind``, for the constructor of a deployment.

    Example:
        ::

            @grpc_deployment
            class Polite(PoliteBase):
                def __init__(self, greeter: GreeterHandle) -> None:
                    self.greeter = greeter

                async def Welcome(self, request: Guest) -> Welcome:
                    reply = await self.greeter.SayHello(HelloRequest(name=request.name), timeout=2)
                    return Welcome(text=reply.text)

            app = Polite.bind(Greeter.bind("Hello"))
    """

    __grpc_service__: ClassVar[Service]

    def __init__(self, handle: Any) -> None:
        self._handle: Any = handle._handle if isinstance(handle, ServiceHandle) else handle

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._handle,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._handle!r})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            name_of = type(self).__name__
            if any(method.python_name == name for method in type(self).__grpc_service__.methods):
                raise AttributeError(
                    f"{name_of} has no {name}: a handle carries one request message, and {name} takes a stream of "
                    f"them. Call it with {name_of.removesuffix('Handle')}Client, through the ingress"
                )
            known = {each for base in type(self).__mro__ for each, value in vars(base).items() if _is_rpc(value)}
            raise unknown_method(self, name, known)


class HandleCall(Generic[ResponseT]):
    """A call of an RPC with one response message. ``await`` it; in a thread, use :meth:`result`."""

    def __init__(self, response: Any, method: Method, deadline: float | None) -> None:
        self._response = response
        self._method = method
        self._deadline = deadline

    def __await__(self) -> Generator[Any, None, ResponseT]:
        return self._wait().__await__()

    async def _wait(self) -> ResponseT:
        try:
            if self._deadline is None:
                return self._decoded(await self._response)
            return self._decoded(await _await_until(_awaited(self._response), self._deadline))
        except asyncio.CancelledError:
            self.cancel()
            raise
        except Exception as error:
            raise self._failed(error) from error

    def result(self) -> ResponseT:
        """Return the response, and wait for it. For threads without an event loop: a sync handler's, or a program's.

        Raises:
            RpcError: The call ended with an error status.
        """
        remaining = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            return self._decoded(self._response.result(timeout_s=remaining))
        except Exception as error:
            is_late = self._deadline is not None and time.monotonic() > self._deadline - _CLOCK_TOLERANCE_S
            raise self._failed(
                _deadline_exceeded() if is_late and isinstance(error, TimeoutError) else error
            ) from error

    def cancel(self) -> None:
        """Cancel the call and its handler; do nothing after the end of the call."""
        self._response.cancel()

    def _decoded(self, data: bytes) -> ResponseT:
        response: Any = self._method.response.FromString(data)
        return response  # type: ignore[no-any-return]

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, RpcError) and error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.cancel()
        return _to_status(error)


class HandleStreamCall(Generic[ResponseT]):
    """A call of an RPC with a response stream. Iterate with ``async for``; in a thread, with ``for``.

    If this object is garbage collected before the end of the stream, the handler is cancelled. Ray Serve takes messages
    from the handler as fast as it sends them, even if the caller does not read them.
    """

    def __init__(self, responses: Any, method: Method, deadline: float | None) -> None:
        self._responses = responses
        self._method = method
        self._deadline = deadline
        self._has_begun = False
        self._ended = False

    def __aiter__(self) -> AsyncIterator[ResponseT]:
        return self

    async def __anext__(self) -> ResponseT:
        try:
            if self._deadline is None:
                data = await self._responses.__anext__()
            else:
                data = await _await_until(self._responses.__anext__(), self._deadline)
        except StopAsyncIteration:
            self._ended = True
            raise
        except asyncio.CancelledError:
            self.cancel()
            raise
        except Exception as error:
            self._fail(error)
        return self._decoded(data)

    def __iter__(self) -> Iterator[ResponseT]:
        return self

    def __next__(self) -> ResponseT:
        try:
            return self._decoded(self._next())
        except StopIteration:
            self._ended = True
            raise
        except Exception as error:
            status = _to_status(error)
            is_cut = isinstance(status, RpcError) and status.code is grpc.StatusCode.CANCELLED
            is_late = self._deadline is not None and time.monotonic() > self._deadline - _CLOCK_TOLERANCE_S
            self._fail(_deadline_exceeded() if is_cut and is_late else error)

    def _next(self) -> bytes:
        """Return the next message. A timer ends the wait for the first: perhaps no replica has the call yet."""
        if self._deadline is None or self._has_begun:
            data: bytes = next(self._responses)
            return data
        timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), self._responses.cancel)
        timer.daemon = True
        timer.start()
        try:
            data = next(self._responses)
        finally:
            timer.cancel()
        self._has_begun = True
        return data

    async def aclose(self) -> None:
        """Cancel the call, as :meth:`cancel` does: for ``contextlib.aclosing``."""
        self.cancel()

    def cancel(self) -> None:
        """Cancel the call and its handler; do nothing after the end of the call."""
        if not self._ended:
            self._ended = True
            self._responses.cancel()

    def __del__(self) -> None:
        if not self._ended and not sys.is_finalizing():
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                self.cancel()

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, RpcError) and error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.cancel()  # the deadline has passed here, and the handler may still run
        self._ended = True
        raise _to_status(error) from error

    def _decoded(self, data: bytes) -> ResponseT:
        response: Any = self._method.response.FromString(data)
        return response  # type: ignore[no-any-return]


class _HandleRpc(Generic[RequestT, ResponseT]):
    """Descriptor of one RPC of a generated handle class. As an attribute of a handle, it calls the RPC.

    Attributes:
        method: The RPC.
    """

    _streams: ClassVar[bool]

    def __init__(self, method: Method) -> None:
        self.method = method
        self._owner: ServiceHandle | None = None
        self._callee: Any = None

    @classmethod
    def of(cls, handle: ServiceHandle, method: Method) -> Self:
        """Return the callable of an RPC of a handle, for a property of a generated handle class."""
        return cls(method).__get__(handle)

    def __get__(self, handle: ServiceHandle | None, owner: type | None = None) -> Self:
        if handle is None:
            return self
        # Python finds the bound copy in the handle's own namespace before it calls this descriptor again.
        name = self.method.python_name
        bound: Self | None = vars(handle).get(name)
        if bound is None:
            bound = copy.copy(self)
            bound._owner = handle
            vars(handle)[name] = bound
        return bound

    def _send(self, request: Any, options: HandleOptions) -> tuple[Any, float | None]:
        """Start a call; return Ray Serve's response and the deadline."""
        if not isinstance(request, self.method.request):
            if request is MISSING:
                raise missing_request(self.method)
            expected = self.method.request.DESCRIPTOR.full_name
            raise TypeError(f"{self.method.python_name} takes a {expected}, not a {type(request).__name__}")
        if unknown := options.keys() - HandleOptions.__annotations__.keys():
            raise unexpected_keyword(self.method, min(unknown), HandleOptions.__annotations__)
        model_id = options.get("model_id", "")
        call = _derive_call(self.method.path, request.SerializeToString(), options)
        if call.time_remaining() == 0.0:
            raise _deadline_exceeded()
        callee = self._callee = self._callee or self._find()
        if model_id:
            callee = callee.options(multiplexed_model_id=model_id)
        return callee.remote(call), call.deadline

    def _find(self) -> Any:
        if self._owner is None:
            raise TypeError(f"{self.method.python_name} must be called on a handle, not on its class")
        handle = self._owner._handle
        if not hasattr(handle, "options"):
            raise TypeError(
                f"{self._owner!r} is not deployed yet: run it, or pass it to the constructor of a deployment"
            )
        method = "_grpc_stream" if self._streams else "_grpc_unary"
        return handle.options(method_name=method, stream=self._streams)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method.path}>"


class HandleUnary(_HandleRpc[RequestT, ResponseT]):
    """An RPC of a handle with one response message."""

    _streams = False

    @request_is_required
    def __call__(self, request: RequestT, **options: Unpack[HandleOptions]) -> HandleCall[ResponseT]:
        """Start a call; ``await`` it for the response."""
        response, deadline = self._send(request, options)
        return HandleCall(response, self.method, deadline)


class HandleStream(_HandleRpc[RequestT, ResponseT]):
    """An RPC of a handle with a response stream."""

    _streams = True

    @request_is_required
    def __call__(self, request: RequestT, **options: Unpack[HandleOptions]) -> HandleStreamCall[ResponseT]:
        """Start a call; iterate over it with ``async for``."""
        responses, deadline = self._send(request, options)
        return HandleStreamCall(responses, self.method, deadline)


def _is_rpc(value: object) -> bool:
    return isinstance(value, (_HandleRpc, property))  # a deprecated RPC is a property


def _derive_call(path: str, request: bytes, options: HandleOptions) -> InnerCall:
    """Return a new call that inherits request id, metadata, identity and deadline from the calling handler's call."""
    current = current_call()
    outer: CallState | None = current._call if isinstance(current, ServicerContext) else current
    left = (options.get("timeout"), outer.time_remaining() if outer is not None else None)
    pairs = tuple(outer.metadata) if outer is not None else ()
    model_id = options.get("model_id")
    if model_id:
        pairs = (*(pair for pair in pairs if pair[0] != _MODEL_ID), (_MODEL_ID, model_id))
    return InnerCall(
        path,
        request,
        outer.request_id if outer is not None else "",
        (*pairs, *options.get("metadata", ())),
        outer.peer if outer is not None else "",
        outer.auth_context if outer is not None else None,
        min((time.monotonic() + seconds for seconds in left if seconds is not None), default=None),
    )


async def _awaited(response: Any) -> Any:
    return await response


async def _await_until(answer: Any, deadline: float) -> Any:
    """Await an answer until a deadline.

    Raises:
        RpcError: The deadline has passed.
    """
    # Not asyncio.wait_for: the handler, too, may have raised a TimeoutError.
    task = asyncio.ensure_future(answer)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(0.0, deadline - time.monotonic()))
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise _deadline_exceeded()
    return task.result()


def _abandon(task: asyncio.Future[Any]) -> None:
    """Cancel a task that is no longer awaited, and retrieve its exception, so that asyncio does not log it."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _deadline_exceeded() -> RpcError:
    return RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded.")


def _to_status(error: Exception) -> Exception:
    """Return the status for an error of a handle, or the error itself if it does not mean a status."""
    if isinstance(error, RpcError) and "ray" not in sys.modules:
        return error
    status = backend().translate(error)
    return status if isinstance(status, RpcError) else error

"""Base classes of the generated handles: calls of one deployment by another, with types.

A generated handle is a class with one attribute for each RPC that takes one request message. It stands on Ray Serve's
``DeploymentHandle`` and needs of it what is public. Neither Ray nor Ray Serve is imported before a call needs them.
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
from sdk.context import ServicerContext, current_call
from sdk.errors import RpcError
from sdk.handles._call import InnerCall

if TYPE_CHECKING:
    from sdk.context import CallState
    from sdk.service import Method, Service

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

_MODEL_ID = "multiplexed_model_id"
# Ray counts in whole milliseconds: it may say that the time is over a little before it is.
_EARLY_S = 0.01


class HandleOptions(TypedDict, total=False):
    """Keyword arguments of every call through a handle."""

    timeout: float | None
    """Seconds until the call ends with DEADLINE_EXCEEDED. The deadline of the call that runs here holds in any case."""
    metadata: Sequence[tuple[str, str | bytes]]
    """Pairs that the handler reads besides those of the call that runs here."""
    model_id: str
    """ID of the model that the replica should have loaded: Ray Serve looks for one that has. For deployments with
    ``@serve.multiplexed``; with others Ray Serve searches in vain for up to a second."""


class ServiceHandle:
    """Base of every generated handle. Give it to a constructor as a parameter's type, and its ``bind`` what to call.

    The called handler sees what the client of the call that runs here has sent: request id, model id, metadata, who it
    is, and the time that is left. A status that it ends with is raised here as :class:`sdk.RpcError`, and becomes
    the status of the call that runs here unless it is caught. What else it raises comes as it does through Ray Serve's
    handles. A call that is cancelled cancels the calls it waits for.

    Args:
        handle: Ray Serve's ``DeploymentHandle``, as ``sdk.run`` and ``serve.get_app_handle`` return it, or what
            ``bind`` returned, for the constructor of a deployment.

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
            raise AttributeError(f"{name_of!r} object has no attribute {name!r}")


class HandleCall(Generic[ResponseT]):
    """A call of an RPC that answers with one message. ``await`` it; in a thread, ask for its :meth:`result`."""

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
            return self._decoded(await _in_time(_awaited(self._response), self._deadline))
        except asyncio.CancelledError:
            self.cancel()
            raise
        except Exception as error:
            raise self._failed(error) from error

    def result(self) -> ResponseT:
        """Wait for the message, in a thread: a sync handler's, or the one of a program.

        Raises:
            RpcError: The call ended with a status.
        """
        remaining = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            return self._decoded(self._response.result(timeout_s=remaining))
        except Exception as error:
            is_late = self._deadline is not None and time.monotonic() > self._deadline - _EARLY_S
            raise self._failed(_too_late() if is_late and isinstance(error, TimeoutError) else error) from error

    def cancel(self) -> None:
        """End the call; the handler is cancelled. Does nothing after the end."""
        self._response.cancel()

    def _decoded(self, data: bytes) -> ResponseT:
        response: Any = self._method.response.FromString(data)
        return response  # type: ignore[no-any-return]

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, RpcError) and error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.cancel()
        return _typed(error)


class HandleStreamCall(Generic[ResponseT]):
    """A call of an RPC that answers with a stream: iterate with ``async for``, in a thread with ``for``.

    When it is dropped before its end, the handler is cancelled. Ray Serve takes messages from the handler as fast as
    it makes them, whether they are read here or not.
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
                data = await _in_time(self._responses.__anext__(), self._deadline)
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
            status = _typed(error)
            is_cut = isinstance(status, RpcError) and status.code is grpc.StatusCode.CANCELLED
            is_late = self._deadline is not None and time.monotonic() > self._deadline - _EARLY_S
            self._fail(_too_late() if is_cut and is_late else error)

    def _next(self) -> bytes:
        """Return the next message. Before the first one there is perhaps no replica yet that ends the call in time."""
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
        """End the call, as :meth:`cancel` does: for ``contextlib.aclosing``."""
        self.cancel()

    def cancel(self) -> None:
        """End the call; the handler is cancelled. Does nothing after the end."""
        if not self._ended:
            self._ended = True
            self._responses.cancel()

    def __del__(self) -> None:
        if not self._ended and not sys.is_finalizing():
            with contextlib.suppress(RuntimeError):  # the loop that it ran on is closed
                self.cancel()

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, RpcError) and error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.cancel()  # it is late here, and may run on there
        self._ended = True
        raise _typed(error) from error

    def _decoded(self, data: bytes) -> ResponseT:
        response: Any = self._method.response.FromString(data)
        return response  # type: ignore[no-any-return]


class _HandleRpc(Generic[RequestT, ResponseT]):
    """One RPC of a generated handle class. Read from a handle, it is what calls the RPC there.

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
        """Return what calls an RPC through a handle, for a property of a generated handle class."""
        return cls(method).__get__(handle)

    def __get__(self, handle: ServiceHandle | None, owner: type | None = None) -> Self:
        if handle is None:
            return self
        # The bound copy lies in the handle's own namespace, where Python finds it before it comes here again.
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
            expected = self.method.request.DESCRIPTOR.full_name
            raise TypeError(f"{self.method.python_name} takes a {expected}, not a {type(request).__name__}")
        if unknown := options.keys() - HandleOptions.__annotations__.keys():
            known = ", ".join(sorted(HandleOptions.__annotations__))
            raise TypeError(
                f"{self.method.python_name} got an unexpected keyword argument {min(unknown)!r}; it takes {known}"
            )
        model_id = options.get("model_id", "")
        call = _inner_call(self.method.path, request.SerializeToString(), options)
        if call.time_remaining() == 0.0:
            raise _too_late()
        callee = self._callee = self._callee or self._find()
        if model_id:
            callee = callee.options(multiplexed_model_id=model_id)
        return callee.remote(call), call.deadline

    def _find(self) -> Any:
        if self._owner is None:
            raise TypeError(f"{self.method.python_name} is called on a handle, not on its class")
        handle = self._owner._handle
        if not hasattr(handle, "options"):
            raise TypeError(
                f"{self._owner!r} is not deployed yet: run it, or give it to the constructor of a deployment"
            )
        method = "_grpc_stream" if self._streams else "_grpc_unary"
        return handle.options(method_name=method, stream=self._streams)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method.path}>"


class HandleUnary(_HandleRpc[RequestT, ResponseT]):
    """An RPC of a handle that answers with one message."""

    _streams = False

    def __call__(self, request: RequestT, **options: Unpack[HandleOptions]) -> HandleCall[ResponseT]:
        """Start a call; ``await`` it for the response."""
        response, deadline = self._send(request, options)
        return HandleCall(response, self.method, deadline)


class HandleStream(_HandleRpc[RequestT, ResponseT]):
    """An RPC of a handle that answers with a stream."""

    _streams = True

    def __call__(self, request: RequestT, **options: Unpack[HandleOptions]) -> HandleStreamCall[ResponseT]:
        """Start a call; iterate over it with ``async for``."""
        responses, deadline = self._send(request, options)
        return HandleStreamCall(responses, self.method, deadline)


def _inner_call(path: str, request: bytes, options: HandleOptions) -> InnerCall:
    """Return a call that carries on what is known of the one that runs here."""
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


async def _in_time(answer: Any, deadline: float) -> Any:
    """Await an answer until a deadline.

    Raises:
        RpcError: The deadline has passed.
    """
    # Not asyncio.wait_for: what the handler raised may be a TimeoutError too.
    task = asyncio.ensure_future(answer)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(0.0, deadline - time.monotonic()))
    except asyncio.CancelledError:
        _leave(task)
        raise
    if not done:
        _leave(task)
        raise _too_late()
    return task.result()


def _leave(task: asyncio.Future[Any]) -> None:
    """Cancel a task that nobody waits for any more, and ask for what it raises: asyncio would log that nobody did."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _too_late() -> RpcError:
    return RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded.")


def _typed(error: Exception) -> Exception:
    """Return the status that an error of a handle means, or the error itself."""
    if isinstance(error, RpcError) and "ray" not in sys.modules:
        return error
    status = backend().translate(error)
    return status if isinstance(status, RpcError) else error

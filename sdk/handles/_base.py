"""Base classes of the generated handles: typed calls from one deployment to another.

A generated handle is a class with one attribute for each RPC. It names its deployment by Ray Serve's
``DeploymentHandle`` (https://docs.ray.io/en/latest/serve/model_composition.html); its calls go straight to a replica
(``sdk/_channel``). That is not imported before a call needs it.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message
from typing_extensions import TypedDict, Unpack

from sdk._backend import backend
from sdk._misuse import MISSING, missing_request, request_is_required, unexpected_keyword, unknown_method
from sdk._otel import current as current_tracing
from sdk.context import current_call
from sdk.errors import RpcError
from sdk.handles._calls import HandleCall, HandleStreamCall

if TYPE_CHECKING:
    from sdk._channel.call import OutgoingCall
    from sdk._channel.target import Target
    from sdk._wire.compression import Compressor
    from sdk.service import Method, Service

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

_MODEL_ID = frozenset({b"multiplexed_model_id"})


class HandleOptions(TypedDict, total=False):
    """Keyword arguments of every call through a handle."""

    timeout: float | None
    """Seconds until the call ends with DEADLINE_EXCEEDED. The deadline of the calling handler's call always applies."""
    metadata: Sequence[tuple[str, str | bytes]]
    """Pairs for the handler, in addition to the metadata of the calling handler's call."""
    model_id: str
    """ID of a model: calls for it go to the same replica while that one lives, and to others while it is busy. For
    deployments with ``@serve.multiplexed`` (https://docs.ray.io/en/latest/serve/model-multiplexing.html)."""
    compression: grpc.Compression | None
    """Compression of the requests. Responses are compressed as the handler says."""


class ServiceHandle:
    """Base of every generated handle. Annotate a constructor's parameter with it, and pass ``bind`` an application.

    The called handler receives from the calling handler's call: request id, model id, metadata, the client's identity
    and the remaining time. If it ends with an error status, the call raises :class:`sdk.RpcError`, which becomes the
    status of the calling handler's call unless that catches it. When the calling handler's call ends, so do the calls
    that it has made.

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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._target: Target | None = None

    @classmethod
    def of_application(cls, name: str) -> Self:
        """Return a handle to the ingress deployment of a running application.

        Args:
            name: Name of the application.

        Raises:
            ClusterError: Ray Serve does not run, or has no such application.
        """
        return cls(backend().application_handle(name))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._handle,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._handle!r})"

    def _find_target(self, loop: asyncio.AbstractEventLoop) -> Target:
        from sdk._channel.target import find_target

        if not hasattr(self._handle, "deployment_name"):
            raise TypeError(f"{self!r} is not deployed yet: run it, or pass it to the constructor of a deployment")
        target = find_target(loop, self._handle)
        if target.is_ready:
            self._loop, self._target = loop, target
        return target

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            known = {each for base in type(self).__mro__ for each, value in vars(base).items() if _is_rpc(value)}
            raise unknown_method(self, name, known)


class _HandleRpc(Generic[RequestT, ResponseT]):
    """Descriptor of one RPC of a generated handle class. As an attribute of a handle, it calls the RPC.

    Attributes:
        method: The RPC.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self._owner: ServiceHandle | None = None
        self._first_lines = b""
        self._is_idempotent = method.idempotency != "unknown"
        self._streams = method.cardinality.server_streaming

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

    def _serialize(self, request: Any) -> bytes:
        if not isinstance(request, self.method.request):
            if request is MISSING:
                raise missing_request(self.method)
            expected = self.method.request.DESCRIPTOR.full_name
            raise TypeError(f"{self.method.python_name} takes a {expected}, not a {type(request).__name__}")
        data: bytes = self.method.request.SerializeToString(request)  # a field may have the name of this method
        return data

    def _start(self, body: bytes | None, requests: Any, options: HandleOptions) -> OutgoingCall:
        """Start a call.

        Args:
            body: The request message; None for a stream of them.
            requests: The stream.
            options: The keyword arguments.
        """
        from sdk._channel.call import OutgoingCall

        owner = self._owner
        if owner is None:
            raise TypeError(f"{self.method.python_name} must be called on a handle, not on its class")
        timeout, model_id, has_timer, without, own, compressor = None, "", False, frozenset[bytes](), b"", None
        if options:
            timeout, model_id, own, compressor = self._read(options)
            has_timer = timeout is not None
            without = _MODEL_ID if model_id else without
        outer = current_call()
        tracing = current_tracing.tracing if outer is not None else current_tracing.refresh()
        if tracing is not None:
            without |= tracing.header_names
        family: set[OutgoingCall] | None = None
        if outer is None:
            lines = self._first_lines or self._make_first_lines()
            metadata = backend().current_metadata()
            if metadata:
                lines += _lines_of(metadata, without)
            has_timer = timeout is not None
        else:
            inherited, family = _inherit(outer, without)
            lines = (self._first_lines or self._make_first_lines()) + inherited
            left = outer.time_remaining()
            if left is not None and (timeout is None or left <= timeout):
                timeout, has_timer = left, False  # its own timer ends the outer call, and with it this one
        if timeout is not None and timeout <= 0.0:
            raise RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded.")
        loop = asyncio._get_running_loop()
        in_thread = loop is None
        target = owner._target if loop is not None and loop is owner._loop else None
        if target is None:
            target = self._find_target(owner, loop)
        make: Callable[..., OutgoingCall] = OutgoingCall
        if tracing is not None and not (own and tracing.carries(own)):
            from sdk._channel.traced_call import traced

            make, more = traced(tracing, self.method.path, target)
            lines += more
        call = make(
            target,
            lines + own,
            body,
            requests=None if requests is None else self._serialized(requests, in_thread=in_thread),
            timeout=timeout,
            timer=has_timer,
            streams=self._streams,
            is_idempotent=self._is_idempotent,
            model_id=model_id,
            family=family,
            compressor=compressor,
        )
        if family is not None:
            family.add(call)
        if in_thread:
            call.loop.call_soon_threadsafe(call.start)
        else:
            call.start()
        return call

    def _read(self, options: HandleOptions) -> tuple[float | None, str, bytes, Compressor | None]:
        """Return the timeout, the model, the header lines and the compressor for keyword arguments."""
        from sdk._channel.request import own_lines

        if unknown := options.keys() - HandleOptions.__annotations__.keys():
            raise unexpected_keyword(self.method, min(unknown), HandleOptions.__annotations__)
        timeout = options.get("timeout")
        if timeout is not None and (not isinstance(timeout, Real) or timeout != timeout):
            raise TypeError(f"{self.method.python_name}: timeout must be a number of seconds, or None, not {timeout!r}")
        model_id = options.get("model_id", "")
        lines, compressor = own_lines(options.get("metadata") or (), model_id), None
        if (compression := options.get("compression")) is not None:
            from sdk._channel.compression import request_compressor

            compressor = request_compressor(compression)
            if compressor is not None:
                lines += b"grpc-encoding: %s\r\n" % compressor.encoding
        return timeout, model_id, lines, compressor

    def _make_first_lines(self) -> bytes:
        from sdk._channel.request import first_lines

        self._first_lines = first_lines(self.method.path)
        return self._first_lines

    def _find_target(self, owner: ServiceHandle, loop: asyncio.AbstractEventLoop | None) -> Target:
        if loop is not None:
            return owner._find_target(loop)
        from sdk._channel.background import background_loop

        background = background_loop()
        if owner._loop is background and owner._target is not None:
            return owner._target

        async def find() -> Target:
            return owner._find_target(background)

        return asyncio.run_coroutine_threadsafe(find(), background).result()

    async def _serialized(self, requests: Any, *, in_thread: bool) -> Any:
        """Yield the serialized messages of a stream of requests."""
        if hasattr(requests, "__aiter__"):
            async for request in requests:
                yield self._serialize(request)
        elif not in_thread:
            for request in requests:
                yield self._serialize(request)
        else:  # the iterator may block
            end = object()
            iterator = iter(requests)
            while (request := await asyncio.to_thread(next, iterator, end)) is not end:
                yield self._serialize(request)

    def _check_stream(self, requests: Any) -> None:
        if requests is MISSING:
            raise missing_request(self.method, "an iterable of")
        if not isinstance(requests, (AsyncIterable, Iterable)) or isinstance(requests, Message):
            expected = self.method.request.DESCRIPTOR.full_name
            raise TypeError(
                f"{self.method.python_name} takes an iterable or an async iterable of {expected}, "
                f"not a {type(requests).__name__}"
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method.path}>"


class HandleUnary(_HandleRpc[RequestT, ResponseT]):
    """An RPC of a handle with one request and one response message."""

    @request_is_required
    def __call__(self, request: RequestT, **options: Unpack[HandleOptions]) -> HandleCall[ResponseT]:
        """Start a call; ``await`` it for the response."""
        return HandleCall(self._start(self._serialize(request), None, options), self.method)


class HandleStream(_HandleRpc[RequestT, ResponseT]):
    """An RPC of a handle with a response stream."""

    @request_is_required
    def __call__(self, request: RequestT, **options: Unpack[HandleOptions]) -> HandleStreamCall[ResponseT]:
        """Start a call; iterate over it with ``async for``."""
        return HandleStreamCall(self._start(self._serialize(request), None, options), self.method)


class HandleStreamUnary(_HandleRpc[RequestT, ResponseT]):
    """An RPC of a handle with a stream of requests and one response message."""

    @request_is_required
    def __call__(
        self, requests: AsyncIterable[RequestT] | Iterable[RequestT], **options: Unpack[HandleOptions]
    ) -> HandleCall[ResponseT]:
        """Start a call that sends the messages of an iterable; ``await`` it for the response."""
        self._check_stream(requests)
        return HandleCall(self._start(None, requests, options), self.method)


class HandleStreamStream(_HandleRpc[RequestT, ResponseT]):
    """An RPC of a handle with a stream of requests and a response stream."""

    @request_is_required
    def __call__(
        self, requests: AsyncIterable[RequestT] | Iterable[RequestT], **options: Unpack[HandleOptions]
    ) -> HandleStreamCall[ResponseT]:
        """Start a call that sends the messages of an iterable; iterate over it with ``async for``."""
        self._check_stream(requests)
        return HandleStreamCall(self._start(None, requests, options), self.method)


def _is_rpc(value: object) -> bool:
    return isinstance(value, (_HandleRpc, property))  # a deprecated RPC is a property


def _lines_of(metadata: list[tuple[str, str | bytes]], without: frozenset[bytes]) -> bytes:
    """Return the header lines for the metadata of a request that Ray Serve's own proxy has received."""
    from sdk._channel.request import lines_of

    return lines_of(metadata, without)


def _inherit(outer: Any, without: frozenset[bytes]) -> tuple[bytes, set[Any]]:
    """Return the header lines that a call inherits, and the calls that end together with it.

    Args:
        outer: The call of the handler that makes it.
        without: Names of headers to leave out.
    """
    from sdk._channel.request import inherited_lines

    inner = outer.inner
    if inner is None:
        from sdk._wire.inner_calls import InnerCalls

        inner = outer.inner = InnerCalls()
    if without:
        return inherited_lines(outer, without), inner.calls
    if not inner.lines:
        inner.lines = inherited_lines(outer)
    return inner.lines, inner.calls

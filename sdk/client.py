"""Base classes of the generated clients, and the RPCs they are made of.

A generated client is a class with one attribute an RPC. Calls return grpc's own call objects, so everything that is
known about those holds here: ``await call``, ``async for``, ``call.cancel()``, ``call.trailing_metadata()``.
Neither Ray nor the server side is imported.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from typing_extensions import Self, TypedDict, Unpack

if TYPE_CHECKING:
    from sdk.service import Method

Metadata: TypeAlias = Sequence[tuple[str, "str | bytes"]]
"""Metadata of a call: pairs of a key and a text, or of a key that ends with ``-bin`` and bytes."""

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
ChannelT = TypeVar("ChannelT", bound="grpc.Channel | grpc.aio.Channel")

# The keyword arguments that Ray Serve's gRPC guide knows as metadata, with their keys there.
_KEYS = {"application": "application", "model_id": "multiplexed_model_id", "request_id": "request_id"}
_ROUTING = frozenset(_KEYS.values())
_OPTIONS = frozenset({"timeout", "metadata", *_KEYS})


class CallOptions(TypedDict, total=False):
    """Keyword arguments of every call. What is given here replaces what was given to the client."""

    timeout: float | None
    """Seconds until the call ends with DEADLINE_EXCEEDED; None for no deadline."""
    metadata: Metadata
    """Pairs to send besides those given to the client."""
    application: str | None
    """Name of the application to route to; None to send none."""
    model_id: str | None
    """ID of the model that the replica should have loaded (metadata ``multiplexed_model_id``)."""
    request_id: str | None
    """ID of the request, in the server's logs and its trailing metadata; the server makes one otherwise."""


class _Client(Generic[ChannelT]):
    """What both kinds of clients share: the channel, and the arguments that go with every call."""

    _other_channel: ClassVar[type[Any]]
    _channel_remedy: ClassVar[str]

    def __init__(
        self,
        target: str | ChannelT,
        *,
        application: str | None = None,
        model_id: str | None = None,
        timeout: float | None = None,
        metadata: Metadata = (),
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] | None = None,
    ) -> None:
        if isinstance(target, self._other_channel):
            raise TypeError(f"{type(self).__name__} {self._channel_remedy}")
        if not isinstance(target, str) and (credentials is not None or options is not None):
            raise ValueError("credentials and options belong to a channel: give them where the channel is made")
        self._target: str | ChannelT = target
        self._credentials = credentials
        self._options = options
        self._channel: ChannelT | None = None if isinstance(target, str) else target
        self._closed = False
        self._timeout = timeout
        self._plain, self._routing = _split(metadata)
        if application is not None:
            self._routing["application"] = application
        if model_id is not None:
            self._routing["multiplexed_model_id"] = model_id
        self._metadata = (*self._plain, *self._routing.items())

    @property
    def channel(self) -> ChannelT:
        """The channel. It is made at the first use, so that a client can be built where no event loop runs.

        Raises:
            ValueError: The client is closed.
        """
        if self._closed:
            raise ValueError(f"{type(self).__name__} is closed; make a new one")
        if self._channel is None:
            self._channel = self._open(cast("str", self._target))
        return self._channel

    def _open(self, target: str) -> ChannelT:
        raise NotImplementedError

    def _take(self) -> ChannelT | None:
        """Mark the client as closed and return the channel to close, if the client made one."""
        self._closed = True
        channel, self._channel = self._channel, None
        return channel if isinstance(self._target, str) else None

    def _arguments(self, rpc: str, options: CallOptions) -> dict[str, Any]:
        """Return the ``timeout`` and ``metadata`` for grpc."""
        if not options:
            return {"timeout": self._timeout, "metadata": self._metadata}
        given = cast("dict[str, Any]", options)
        if unknown := given.keys() - _OPTIONS:
            raise TypeError(
                f"{rpc} got an unexpected keyword argument {min(unknown)!r}; it takes {', '.join(sorted(_OPTIONS))}"
            )
        plain, routing = _split(given.get("metadata", ()))
        routing = {**self._routing, **routing, **{key: given[name] for name, key in _KEYS.items() if name in given}}
        named = ((key, value) for key, value in routing.items() if value is not None)
        return {"timeout": given.get("timeout", self._timeout), "metadata": (*self._plain, *plain, *named)}


class AsyncClient(_Client[grpc.aio.Channel]):
    """Base of every generated async client. Use it in one event loop.

    Args:
        target: ``"host:port"``, or a channel. A channel that was given is not closed by the client.
        application: Name of the application to route to (metadata ``application``).
        model_id: ID of the model that the replica should have loaded (metadata ``multiplexed_model_id``).
        timeout: Seconds until a call ends with DEADLINE_EXCEEDED; None for no deadline.
        metadata: Pairs to send with every call.
        credentials: For TLS, ``grpc.ssl_channel_credentials(...)``; None for plain text.
        options: Channel arguments of gRPC, ``[("grpc.max_receive_message_length", 2**26)]``.

    Raises:
        ValueError: A channel was given together with what belongs to one.
        TypeError: The channel is a blocking one.

    Example:
        ::

            async with GreeterClient("localhost:9000", application="app1") as client:
                reply = await client.SayHello(HelloRequest(name="you"), timeout=2)
    """

    _other_channel = grpc.Channel
    _channel_remedy = "needs a channel of grpc.aio; a channel of grpc goes with the SyncClient"

    def _open(self, target: str) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options=self._options)
        return grpc.aio.secure_channel(target, self._credentials, options=self._options)

    async def close(self) -> None:
        """Close the channel, unless it was given to the client. Calls that still run are cancelled."""
        channel = self._take()
        if channel is not None:
            await channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class SyncClient(_Client[grpc.Channel]):
    """Base of every generated blocking client. It may be shared by threads.

    Takes the arguments of :class:`AsyncClient`, with a channel of ``grpc`` instead of ``grpc.aio``.

    Raises:
        ValueError: A channel was given together with what belongs to one.
        TypeError: The channel is one of ``grpc.aio``.

    Example:
        ::

            with GreeterSyncClient("localhost:9000", application="app1") as client:
                reply, call = client.SayHello.with_call(HelloRequest(name="you"), timeout=2)
                call.trailing_metadata()
    """

    _other_channel = grpc.aio.Channel
    _channel_remedy = "needs a channel of grpc; a channel of grpc.aio goes with the async client"

    def _open(self, target: str) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(target, options=self._options)
        return grpc.secure_channel(target, self._credentials, options=self._options)

    def close(self) -> None:
        """Close the channel, unless it was given to the client. Calls that still run are cancelled."""
        channel = self._take()
        if channel is not None:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Rpc(Generic[RequestT, ResponseT]):
    """One RPC of a generated client class. Read from a client, it is what calls the RPC on that client's channel.

    Attributes:
        method: The RPC.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self._name = method.python_name
        self._client: _Client[Any] | None = None
        self._invoke: Any = None

    @classmethod
    def of(cls, client: _Client[Any], method: Method) -> Self:
        """Return what calls an RPC on the client's channel, for a property of a generated client class."""
        return cls(method).__get__(client)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, client: _Client[Any] | None, owner: type | None = None) -> Self:
        if client is None:
            return self
        # The bound copy lies in the client's own namespace, where Python finds it before it comes here again.
        # Only an implicit `client(...)` of an RPC called __call__ comes here every time.
        bound: Self | None = vars(client).get(self._name)
        if bound is None:
            bound = copy.copy(self)
            bound._client = client
            multicallable = getattr(client.channel, self.method.cardinality.value)
            bound._invoke = multicallable(
                self.method.path,
                request_serializer=self.method.request.SerializeToString,
                response_deserializer=self.method.response.FromString,
            )
            vars(client)[self._name] = bound
        return bound

    def _call(self, request: Any, options: CallOptions, form: str = "__call__") -> Any:
        if self._client is None:
            raise TypeError(f"{self._name} is called on a client, not on its class")
        return getattr(self._invoke, form)(request, **self._client._arguments(self._name, options))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method.path}>"


class AsyncUnaryUnary(_Rpc[RequestT, ResponseT]):
    """An RPC of an async client: one request, one response."""

    def __call__(
        self, request: RequestT, **options: Unpack[CallOptions]
    ) -> grpc.aio.UnaryUnaryCall[RequestT, ResponseT]:
        """Start a call; ``await`` it for the response."""
        return cast("grpc.aio.UnaryUnaryCall[RequestT, ResponseT]", self._call(request, options))


class AsyncUnaryStream(_Rpc[RequestT, ResponseT]):
    """An RPC of an async client: one request, a stream of responses."""

    def __call__(
        self, request: RequestT, **options: Unpack[CallOptions]
    ) -> grpc.aio.UnaryStreamCall[RequestT, ResponseT]:
        """Start a call; iterate over it with ``async for``."""
        return cast("grpc.aio.UnaryStreamCall[RequestT, ResponseT]", self._call(request, options))


class AsyncStreamUnary(_Rpc[RequestT, ResponseT]):
    """An RPC of an async client: a stream of requests, one response."""

    def __call__(
        self,
        requests: AsyncIterable[RequestT] | Iterable[RequestT] | None = None,
        **options: Unpack[CallOptions],
    ) -> grpc.aio.StreamUnaryCall[RequestT, ResponseT]:
        """Start a call; ``await`` it for the response. Without ``requests``, send them with ``call.write``."""
        return cast("grpc.aio.StreamUnaryCall[RequestT, ResponseT]", self._call(requests, options))


class AsyncStreamStream(_Rpc[RequestT, ResponseT]):
    """An RPC of an async client: a stream of requests, a stream of responses."""

    def __call__(
        self,
        requests: AsyncIterable[RequestT] | Iterable[RequestT] | None = None,
        **options: Unpack[CallOptions],
    ) -> grpc.aio.StreamStreamCall[RequestT, ResponseT]:
        """Start a call; iterate over it with ``async for``. Without ``requests``, send them with ``call.write``."""
        return cast("grpc.aio.StreamStreamCall[RequestT, ResponseT]", self._call(requests, options))


class SyncUnaryUnary(_Rpc[RequestT, ResponseT]):
    """An RPC of a blocking client: one request, one response."""

    def __call__(self, request: RequestT, **options: Unpack[CallOptions]) -> ResponseT:
        """Call and wait for the response."""
        return cast("ResponseT", self._call(request, options))

    def with_call(self, request: RequestT, **options: Unpack[CallOptions]) -> tuple[ResponseT, grpc.Call]:
        """Call, and return the response with the call, which knows the code and the trailing metadata."""
        return cast("tuple[ResponseT, grpc.Call]", self._call(request, options, "with_call"))


class SyncUnaryStream(_Rpc[RequestT, ResponseT]):
    """An RPC of a blocking client: one request, a stream of responses."""

    def __call__(self, request: RequestT, **options: Unpack[CallOptions]) -> grpc.CallIterator[ResponseT]:
        """Start a call; iterate over it."""
        return cast("grpc.CallIterator[ResponseT]", self._call(request, options))


class SyncStreamUnary(_Rpc[RequestT, ResponseT]):
    """An RPC of a blocking client: a stream of requests, one response."""

    def __call__(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> ResponseT:
        """Send all requests and wait for the response."""
        return cast("ResponseT", self._call(iter(requests), options))

    def with_call(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> tuple[ResponseT, grpc.Call]:
        """Call, and return the response with the call, which knows the code and the trailing metadata."""
        return cast("tuple[ResponseT, grpc.Call]", self._call(iter(requests), options, "with_call"))


class SyncStreamStream(_Rpc[RequestT, ResponseT]):
    """An RPC of a blocking client: a stream of requests, a stream of responses."""

    def __call__(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> grpc.CallIterator[ResponseT]:
        """Start a call; iterate over it. A thread of grpc's takes the requests from ``requests``."""
        return cast("grpc.CallIterator[ResponseT]", self._call(iter(requests), options))


def _split(metadata: Metadata) -> tuple[tuple[tuple[str, str | bytes], ...], dict[str, Any]]:
    """Return the metadata without the keys that can also be given as keyword arguments, and these.

    Each of these must reach the server once: with two values for ``application`` the ingress could only guess.
    """
    plain = tuple(pair for pair in metadata if pair[0] not in _ROUTING)
    return plain, {key: value for key, value in metadata if key in _ROUTING}

"""The RPCs that the generated clients are made of: one descriptor a method, and the keyword arguments of a call."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from typing_extensions import TypedDict, Unpack

from sdk.client_requests import Requests, check_request, check_writes, checked_requests

if TYPE_CHECKING:
    from sdk.client import AsyncClient, SyncClient
    from sdk.service import Method

    Client: TypeAlias = AsyncClient | SyncClient
    T = TypeVar("T")

    class Responses(grpc.Call, Iterator[T]):
        """What a blocking client returns for a stream of responses, for type checkers: grpc's call, all of it typed."""


Metadata: TypeAlias = Sequence[tuple[str, "str | bytes"]]
"""Metadata of a call: pairs of a key and a text, or of a key that ends with ``-bin`` and bytes."""

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


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
    wait_for_ready: bool | None
    """Whether the call waits, until its deadline, while the server can't be reached, instead of ending UNAVAILABLE."""
    compression: grpc.Compression | None
    """How the requests are compressed."""
    credentials: grpc.CallCredentials | None
    """Credentials of this call, besides those of the channel; over TLS only."""


class Rpc(Generic[RequestT, ResponseT]):
    """One RPC of a generated client class. Read from a client, it is what calls the RPC on that client's channel.

    Attributes:
        method: The RPC.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self._name = method.python_name
        self._client: Client | None = None
        self._invoke: Any = None

    @classmethod
    def of(cls, client: Client, method: Method) -> Self:
        """Return what calls an RPC on the client's channel, for a property of a generated client class."""
        return cls(method).__get__(client)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, client: Client | None, owner: type | None = None) -> Self:
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

    def _call(self, request: RequestT, options: CallOptions, form: str = "__call__") -> Any:
        check_request(request, self.method)
        return self._send(request, options, form)

    def _call_with_all(self, requests: Iterable[RequestT], options: CallOptions, form: str = "__call__") -> Any:
        checked = Requests(requests, self.method)
        try:
            return self._send(checked, options, form)
        except grpc.RpcError as error:
            if checked.error is not None:  # grpc calls it UNKNOWN; the caller knows it better
                raise checked.error from error
            raise

    def _send(self, request: Any, options: CallOptions, form: str = "__call__") -> Any:
        if self._client is None:
            raise TypeError(f"{self._name} is called on a client, not on its class")
        return getattr(self._invoke, form)(request, **self._client._arguments(self._name, options))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method.path}>"


class AsyncUnaryUnary(Rpc[RequestT, ResponseT]):
    """An RPC of an async client: one request, one response."""

    def __call__(
        self, request: RequestT, **options: Unpack[CallOptions]
    ) -> grpc.aio.UnaryUnaryCall[RequestT, ResponseT]:
        """Start a call; ``await`` it for the response."""
        return cast("grpc.aio.UnaryUnaryCall[RequestT, ResponseT]", self._call(request, options))


class AsyncUnaryStream(Rpc[RequestT, ResponseT]):
    """An RPC of an async client: one request, a stream of responses."""

    def __call__(
        self, request: RequestT, **options: Unpack[CallOptions]
    ) -> grpc.aio.UnaryStreamCall[RequestT, ResponseT]:
        """Start a call; iterate over it with ``async for``."""
        return cast("grpc.aio.UnaryStreamCall[RequestT, ResponseT]", self._call(request, options))


class AsyncStreamUnary(Rpc[RequestT, ResponseT]):
    """An RPC of an async client: a stream of requests, one response."""

    def __call__(
        self,
        requests: AsyncIterable[RequestT] | Iterable[RequestT] | None = None,
        **options: Unpack[CallOptions],
    ) -> grpc.aio.StreamUnaryCall[RequestT, ResponseT]:
        """Start a call; ``await`` it for the response. Without ``requests``, send them with ``call.write``."""
        call = cast(
            "grpc.aio.StreamUnaryCall[RequestT, ResponseT]",
            self._send(checked_requests(requests, self.method), options),
        )
        return check_writes(call, self.method) if requests is None else call


class AsyncStreamStream(Rpc[RequestT, ResponseT]):
    """An RPC of an async client: a stream of requests, a stream of responses."""

    def __call__(
        self,
        requests: AsyncIterable[RequestT] | Iterable[RequestT] | None = None,
        **options: Unpack[CallOptions],
    ) -> grpc.aio.StreamStreamCall[RequestT, ResponseT]:
        """Start a call; iterate over it with ``async for``. Without ``requests``, send them with ``call.write``."""
        call = cast(
            "grpc.aio.StreamStreamCall[RequestT, ResponseT]",
            self._send(checked_requests(requests, self.method), options),
        )
        return check_writes(call, self.method) if requests is None else call


class SyncUnaryUnary(Rpc[RequestT, ResponseT]):
    """An RPC of a blocking client: one request, one response."""

    def __call__(self, request: RequestT, **options: Unpack[CallOptions]) -> ResponseT:
        """Call and wait for the response."""
        return cast("ResponseT", self._call(request, options))

    def with_call(self, request: RequestT, **options: Unpack[CallOptions]) -> tuple[ResponseT, grpc.Call]:
        """Call, and return the response with the call, which knows the code and the trailing metadata."""
        return cast("tuple[ResponseT, grpc.Call]", self._call(request, options, "with_call"))


class SyncUnaryStream(Rpc[RequestT, ResponseT]):
    """An RPC of a blocking client: one request, a stream of responses."""

    def __call__(self, request: RequestT, **options: Unpack[CallOptions]) -> Responses[ResponseT]:
        """Start a call; iterate over it."""
        return cast("Responses[ResponseT]", self._call(request, options))


class SyncStreamUnary(Rpc[RequestT, ResponseT]):
    """An RPC of a blocking client: a stream of requests, one response."""

    def __call__(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> ResponseT:
        """Send all requests and wait for the response."""
        return cast("ResponseT", self._call_with_all(requests, options))

    def with_call(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> tuple[ResponseT, grpc.Call]:
        """Call, and return the response with the call, which knows the code and the trailing metadata."""
        return cast("tuple[ResponseT, grpc.Call]", self._call_with_all(requests, options, "with_call"))


class SyncStreamStream(Rpc[RequestT, ResponseT]):
    """An RPC of a blocking client: a stream of requests, a stream of responses."""

    def __call__(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> Responses[ResponseT]:
        """Start a call; iterate over it. A thread of grpc's takes the requests from ``requests``."""
        return cast("Responses[ResponseT]", self._send(Requests(requests, self.method), options))

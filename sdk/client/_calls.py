"""The RPCs that the generated clients are made of: one descriptor a method, and the keyword arguments of a call."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
from typing_extensions import Unpack

from sdk.client._base import CallOptions, RequestT, ResponseT, Rpc
from sdk.client._requests import Requests, check_writes, checked_requests

if TYPE_CHECKING:
    import grpc.aio

    T = TypeVar("T")

    class Responses(grpc.Call, Iterator[T]):
        """What a blocking client returns for a stream of responses, for type checkers: grpc's call, all of it typed."""


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

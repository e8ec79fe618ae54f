"""Methods of generated clients, as descriptors: one class for each cardinality, async and blocking."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
from typing_extensions import Unpack

from sdk._misuse import request_is_required
from sdk.client._base import CallOptions, ClientMethod, RequestT, ResponseT
from sdk.client._requests import CheckedRequests, checked_requests
from sdk.client._streams import StreamStreamCall, StreamUnaryCall, UnaryStreamCall

if TYPE_CHECKING:
    import grpc.aio

    T = TypeVar("T")

    class Responses(grpc.Call, Iterator[T]):
        """Stream of responses of a blocking client: grpc's call, with complete types for type checkers."""


class AsyncUnaryUnary(ClientMethod[RequestT, ResponseT]):
    """Method of an async client: one request, one response."""

    @request_is_required
    def __call__(
        self, request: RequestT, **options: Unpack[CallOptions]
    ) -> grpc.aio.UnaryUnaryCall[RequestT, ResponseT]:
        """Start a call; ``await`` it for the response."""
        return cast("grpc.aio.UnaryUnaryCall[RequestT, ResponseT]", self._call(request, options))


class AsyncUnaryStream(ClientMethod[RequestT, ResponseT]):
    """Method of an async client: one request, a stream of responses."""

    @request_is_required
    def __call__(
        self, request: RequestT, **options: Unpack[CallOptions]
    ) -> grpc.aio.UnaryStreamCall[RequestT, ResponseT]:
        """Start a call; iterate over it with ``async for`` for the responses. It is cancelled when it is dropped."""
        return UnaryStreamCall(self._call(request, options), self.method)


class AsyncStreamUnary(ClientMethod[RequestT, ResponseT]):
    """Method of an async client: a stream of requests, one response."""

    def __call__(
        self,
        requests: AsyncIterable[RequestT] | Iterable[RequestT] | None = None,
        **options: Unpack[CallOptions],
    ) -> grpc.aio.StreamUnaryCall[RequestT, ResponseT]:
        """Start a call; ``await`` it for the response.

        Without ``requests``, send them with ``call.write``; the call is cancelled when it is dropped before its end.
        """
        call = self._send(checked_requests(requests, self.method, self._validation), options)
        if requests is None:
            return StreamUnaryCall(call, self.method, self._validation)
        return cast("grpc.aio.StreamUnaryCall[RequestT, ResponseT]", call)


class AsyncStreamStream(ClientMethod[RequestT, ResponseT]):
    """Method of an async client: a stream of requests, a stream of responses."""

    def __call__(
        self,
        requests: AsyncIterable[RequestT] | Iterable[RequestT] | None = None,
        **options: Unpack[CallOptions],
    ) -> grpc.aio.StreamStreamCall[RequestT, ResponseT]:
        """Start a call; iterate over it with ``async for``. It is cancelled when it is dropped before its end.

        Without ``requests``, send them with ``call.write``.
        """
        checked = checked_requests(requests, self.method, self._validation)
        return StreamStreamCall(self._send(checked, options), self.method, self._validation)


class SyncUnaryUnary(ClientMethod[RequestT, ResponseT]):
    """Method of a blocking client: one request, one response."""

    _returns_call = False

    @request_is_required
    def __call__(self, request: RequestT, **options: Unpack[CallOptions]) -> ResponseT:
        """Call and wait for the response."""
        return cast("ResponseT", self._call(request, options))

    @request_is_required
    def with_call(self, request: RequestT, **options: Unpack[CallOptions]) -> tuple[ResponseT, grpc.Call]:
        """Call, and return the response and the call, which has the status code and the trailing metadata."""
        return cast("tuple[ResponseT, grpc.Call]", self._call(request, options, "with_call"))


class SyncUnaryStream(ClientMethod[RequestT, ResponseT]):
    """Method of a blocking client: one request, a stream of responses."""

    @request_is_required
    def __call__(self, request: RequestT, **options: Unpack[CallOptions]) -> Responses[ResponseT]:
        """Start a call; iterate over it for the responses."""
        return cast("Responses[ResponseT]", self._call(request, options))


class SyncStreamUnary(ClientMethod[RequestT, ResponseT]):
    """Method of a blocking client: a stream of requests, one response."""

    _returns_call = False

    @request_is_required
    def __call__(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> ResponseT:
        """Send all requests and wait for the response."""
        return cast("ResponseT", self._call_with_stream(requests, options))

    @request_is_required
    def with_call(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> tuple[ResponseT, grpc.Call]:
        """Call, and return the response and the call, which has the status code and the trailing metadata."""
        return cast("tuple[ResponseT, grpc.Call]", self._call_with_stream(requests, options, "with_call"))


class SyncStreamStream(ClientMethod[RequestT, ResponseT]):
    """Method of a blocking client: a stream of requests, a stream of responses."""

    @request_is_required
    def __call__(self, requests: Iterable[RequestT], **options: Unpack[CallOptions]) -> Responses[ResponseT]:
        """Start a call; iterate over it. A thread of grpc iterates over ``requests``."""
        checked = CheckedRequests(requests, self.method, self._validation)
        return cast("Responses[ResponseT]", self._send(checked, options))

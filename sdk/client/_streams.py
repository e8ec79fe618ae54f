"""Calls of async clients with a stream: grpc's calls, cancelled when their reader leaves them.

A call of ``grpc.aio`` with a stream lives until it ends or its channel is closed, even if nothing refers to it: since
grpcio 1.83 the callback with which a channel counts its calls does (https://github.com/grpc/grpc/issues/43462). So a
reader that breaks out of ``async for`` would leave a handler that generates to its end, and that holds one of its
replica's ``max_ongoing_requests``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from sdk.client._requests import check_request

if TYPE_CHECKING:
    from sdk.client._requests import Validation
    from sdk.service import Method

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class _Stream:
    """A call of ``grpc.aio``, with its whole API; it is cancelled when nothing refers to this object any more.

    Args:
        call: The call. Its other references, as those of its callbacks, don't count.
        method: The RPC.
        validation: The check of the requests' rules, if the client checks them.
    """

    # Coroutines, so that they refer to this object while they run.

    def __init__(self, call: Any, method: Method, validation: Validation | None = None) -> None:
        self._call = call
        self._method = method
        self._validation = validation
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        call = self._call
        if not call.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call.cancel)  # the garbage collector runs in any thread

    def cancelled(self) -> bool:
        return bool(self._call.cancelled())

    def done(self) -> bool:
        return bool(self._call.done())

    def time_remaining(self) -> float | None:
        remaining: float | None = self._call.time_remaining()
        return remaining

    def cancel(self) -> bool:
        return bool(self._call.cancel())

    def add_done_callback(self, callback: Any) -> None:
        self._call.add_done_callback(callback)

    async def initial_metadata(self) -> Any:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await self._call.trailing_metadata()

    async def code(self) -> Any:
        return await self._call.code()

    async def details(self) -> Any:
        return await self._call.details()

    async def wait_for_connection(self) -> None:
        await self._call.wait_for_connection()

    async def read(self) -> Any:
        return await self._call.read()

    async def write(self, request: Any) -> None:
        check_request(request, self._method, self._validation)
        await self._call.write(request)

    async def done_writing(self) -> None:
        await self._call.done_writing()

    def __aiter__(self) -> _Messages:
        return _Messages(self, aiter(self._call))

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._call.__await__())

    def __repr__(self) -> str:
        return repr(self._call)


class _Messages(AsyncIterator[Any]):
    """The messages of a stream; ``async for`` refers to nothing else."""

    __slots__ = ("_messages", "_stream")

    def __init__(self, stream: _Stream, messages: AsyncIterator[Any]) -> None:
        self._stream = stream
        self._messages = messages

    def __anext__(self) -> Awaitable[Any]:
        return anext(self._messages)


class UnaryStreamCall(_Stream, grpc.aio.UnaryStreamCall[RequestT, ResponseT]):
    """A call with a stream of responses."""


class StreamUnaryCall(_Stream, grpc.aio.StreamUnaryCall[RequestT, ResponseT]):
    """A call with a stream of requests that its caller writes."""


class StreamStreamCall(_Stream, grpc.aio.StreamStreamCall[RequestT, ResponseT]):
    """A call with both streams."""

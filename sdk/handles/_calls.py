"""The calls that a handle returns: awaited or iterated on an event loop, or used in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

if TYPE_CHECKING:
    from sdk._channel.call import OutgoingCall
    from sdk._wire.frames import FlaggedMessage
    from sdk.service import Method

ResponseT = TypeVar("ResponseT", bound=Message)
T = TypeVar("T")


class _Call(Generic[ResponseT]):
    def __init__(self, call: OutgoingCall, method: Method) -> None:
        self._call = call
        self._response = method.response
        self._from_string: Any = method.response.FromString  # its type knows bytes only

    def cancel(self) -> None:
        """Cancel the call and its handler; do nothing after the end of the call."""
        self._call.cancel()

    def _decoded(self, data: bytes | bytearray | FlaggedMessage) -> ResponseT:
        try:
            return self._from_string(data)  # type: ignore[no-any-return]
        except (DecodeError, TypeError) as error:  # TypeError: it is compressed, and the replica did not say how
            import grpc

            from sdk.errors import RpcError

            name = self._response.DESCRIPTOR.full_name
            raise RpcError(grpc.StatusCode.INTERNAL, f"the response is not a {name}: {error}") from None

    async def _on_its_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine of the call, which may run on another event loop than the caller."""
        loop = self._call.loop
        if asyncio.get_running_loop() is loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    def _in_thread(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine of the call, in a thread."""
        if asyncio._get_running_loop() is not None:
            coroutine.close()
            raise RuntimeError("a blocking call on an event loop would block it: use await, or async for")
        return asyncio.run_coroutine_threadsafe(coroutine, self._call.loop).result()


class HandleCall(_Call[ResponseT]):
    """A call of an RPC with one response message. ``await`` it; in a thread, use :meth:`result`."""

    def __await__(self) -> Generator[Any, None, ResponseT]:
        return self._wait().__await__()

    async def _wait(self) -> ResponseT:
        call = self._call
        waiting = call.response()
        try:
            data = await waiting if get_ident() == call.thread else await self._on_its_loop(waiting)
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._decoded(data)

    def result(self) -> ResponseT:
        """Return the response, and wait for it. For threads without an event loop: a sync handler's, or a program's.

        Raises:
            RpcError: The call ended with an error status.
        """
        return self._decoded(self._in_thread(self._call.response()))


class HandleStreamCall(_Call[ResponseT]):
    """A call of an RPC with a response stream. Iterate with ``async for``; in a thread, with ``for``.

    The handler waits while the caller does not read. If this object is garbage collected before the end of the stream,
    the handler is cancelled.
    """

    def __aiter__(self) -> AsyncIterator[ResponseT]:
        return self

    async def __anext__(self) -> ResponseT:
        call = self._call
        if call.messages and get_ident() == call.thread:  # most messages of a stream have arrived before
            return self._decoded(call.take_message())
        try:
            data = await self._on_its_loop(call.next_message())
        except asyncio.CancelledError:
            self.cancel()
            raise
        if data is None:
            raise StopAsyncIteration
        return self._decoded(data)

    def __iter__(self) -> Iterator[ResponseT]:
        return self

    def __next__(self) -> ResponseT:
        data = self._in_thread(self._call.next_message())
        if data is None:
            raise StopIteration
        return self._decoded(data)

    async def aclose(self) -> None:
        """Cancel the call, as :meth:`cancel` does: for ``contextlib.aclosing``."""
        self.cancel()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                self.cancel()

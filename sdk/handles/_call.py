"""One call through a typed handle: sent to the other deployment, where it is the state of the handler's context."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import EOF

from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk.context import CallState, MetadataPairs, ServicerContext

Metadata = tuple[tuple[str, "str | bytes"], ...]


class InnerCall:
    """A call from one deployment to another; implements ``sdk.context.CallState``.

    The handler sees the metadata of the outer call's client, with the caller's additions. Its own metadata and status
    reach the caller with an error, and are dropped if the call succeeds.

    Args:
        path: Path of the method, ``"/greet.Greeter/SayHello"``.
        request: The request message, serialized.
        request_id: The outer call's id; ``""`` without an outer call.
        metadata: The metadata for the handler.
        peer: The client's address, from the outer call.
        auth_context: The client's TLS identity, from the outer call.
        deadline: Time at which the call ends with DEADLINE_EXCEEDED, by ``time.monotonic()``; None for no deadline.
    """

    def __init__(
        self,
        path: str,
        request: bytes,
        request_id: str = "",
        metadata: Metadata = (),
        peer: str = "",
        auth_context: Mapping[str, Sequence[bytes]] | None = None,
        deadline: float | None = None,
    ) -> None:
        self.path = path.encode()
        self.request = request
        self.request_id = request_id
        self.metadata = metadata
        self.peer = peer
        self.auth_context = dict(auth_context or {})
        self.deadline = deadline
        self.trailing: Metadata = ()
        self.code: int | None = None
        self.details = ""
        self.aborted: RpcError | None = None
        self.context: ServicerContext | None = None
        self.ended_by: RpcError | None = None  # the error that ended it from outside the handler
        self._task: asyncio.Task[Any] | None = None
        self._is_done = False
        self._is_cancelled = False
        self._callbacks: list[Callable[[], None]] = []
        self._write: Callable[[Any], Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Send the remaining time, not the deadline: the clocks of two machines differ. Ray Serve pickles a call only
        # after it has found a replica for it, so the wait for the replica counts. gRPC does the same with grpc-timeout:
        # https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
        own = (self.request_id, self.metadata, self.peer, self.auth_context, self.time_remaining())
        return _received, (self.path.decode(), self.request, *own)

    def header(self, name: bytes) -> str | None:
        key = name.decode()
        values = [value for known, value in self.metadata if known == key]
        return str(values[-1]) if values else None

    def set_trailing(self, metadata: MetadataPairs) -> None:
        self.trailing = tuple((str(key), value) for key, value in metadata)

    def send_initial_metadata(self, metadata: MetadataPairs) -> None:
        """Do nothing: a handle gives its caller no initial metadata."""

    def set_compression(self, compression: grpc.Compression) -> None:
        """Do nothing: Ray transports the messages."""

    def disable_next_message_compression(self) -> None:
        """Do nothing, like :meth:`set_compression`."""

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def is_done(self) -> bool:
        return self._is_done

    def is_cancelled(self) -> bool:
        return self._is_cancelled

    def on_done(self, callback: Callable[[], None]) -> bool:
        if not self._is_done:
            self._callbacks.append(callback)
        return not self._is_done

    def cancel_by_handler(self) -> None:
        self._end(RpcError(grpc.StatusCode.CANCELLED, "the handler cancelled the call"))

    async def read_message(self) -> Any:
        return EOF  # the handler has received the only message as its argument

    async def write_message(self, message: Any) -> None:
        if self._write is None:
            raise RuntimeError("write() is for streams; this method has one response message: return it")
        await self._write(message)

    # -- for sdk/handles/_answer.py, which runs the handler ------------------------------------

    def begin(self, task: asyncio.Task[Any], write: Callable[[Any], Any] | None = None) -> None:
        """Start the deadline.

        Args:
            task: The task that runs the handler; the deadline and ``cancel()`` cancel it.
            write: Sends one message of a response stream.
        """
        self._task = task
        self._write = write
        remaining = self.time_remaining()
        if remaining is not None:
            error = RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded.")
            timer = task.get_loop().call_later(remaining, self._end, error)
            task.add_done_callback(lambda _: timer.cancel())

    def finish(self) -> None:
        """Mark the call as done, and cancel its task if it still runs."""
        if self._is_done:
            return
        self._is_done = True
        if self._task is not None and not self._task.done():
            self._is_cancelled = True
            self._task.cancel()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def error(self) -> RpcError | None:
        """Return the error that ends the call other than the handler's exception; None for success."""
        if self.ended_by is not None or self.aborted is not None:
            return self.ended_by or self.aborted
        if not self.code:
            return None
        code = next(code for code in grpc.StatusCode if code.value[0] == self.code)
        return RpcError(code, self.details)

    def _end(self, error: RpcError) -> None:
        if self._is_done or self.ended_by is not None:
            return
        self.ended_by = error
        self._is_cancelled = True
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def _received(
    path: str, request: bytes, request_id: str, metadata: Metadata, peer: str, auth: Any, remaining: float | None
) -> InnerCall:
    deadline = None if remaining is None else time.monotonic() + remaining
    return InnerCall(path, request, request_id, metadata, peer, auth, deadline)


if TYPE_CHECKING:
    _: Callable[[InnerCall], CallState] = lambda call: call  # noqa: E731  # checks that the class implements the protocol

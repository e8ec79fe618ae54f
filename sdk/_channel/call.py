"""One call to another deployment, from the caller's side: sent, perhaps again, and ended.

On the path of every call through a handle, and written for speed: with an idle connection a unary call is one write and
one wake-up, without a task. All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING

import grpc

from sdk._channel.request import timeout_line
from sdk._channel.status import error_of
from sdk._replica_protocol import REPLICA_DIED, SHUTTING_DOWN
from sdk._wire.frames import FlaggedMessage, FrameError, FrameReader, pack_prefix, single_message
from sdk._wire.steps import Steps
from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk._channel.connection import ReplicaConnection
    from sdk._channel.replicas import Subchannel
    from sdk._channel.target import Target
    from sdk._wire.compression import Compressor

# Longest response message: the most that its prefix can say.
_MAX_LENGTH = (1 << 32) - 1
# Bytes of response messages that wait for the caller: above the first the connection is no longer read, below the
# second it is read again. Each message counts for more than its length.
HIGH_WATER, LOW_WATER, _MESSAGE_COST = 1 << 20, 1 << 19, 64
# Most times that a call is sent to another replica because one refused it.
_MAX_REFUSALS = 16

# Bytes of a stream of requests that are sent again if the replica refuses the call.
_REPLAYED_BYTES = 64 << 10

CANCELLED = "the caller cancelled the call"


class OutgoingCall:
    """One call.

    Args:
        target: The deployment.
        lines: First lines of the request's head.
        body: The request message; None for a stream of them.
        requests: The serialized request messages of a stream.
        timeout: Seconds until the call ends DEADLINE_EXCEEDED; None for no limit.
        timer: False if another one ends the call when the timeout is over.
        streams: True for a stream of response messages.
        is_idempotent: True if the call may be sent again after a replica was lost.
        model_id: The model that the replica should have loaded, or an empty string.
        family: The calls that end with the call of the handler that makes this one; None outside of one.
        compressor: Compresses the request messages; None if they are sent as they are.

    Attributes:
        messages: Response messages of a stream that the caller has not taken.
        is_done: True once the call has ended.
        request_complete: True once the whole request was sent.
        thread: The thread that may take messages which have arrived, as ``threading.get_ident`` names it: that of the
            loop; 0 if they are compressed.
    """

    __slots__ = (
        "_body", "_compressor", "_connection", "_context", "_deadline", "_encoding", "_error", "_family", "_flag",
        "_has_timer", "_is_idempotent", "_is_paused", "_lines", "_model_id", "_queued_bytes", "_reader", "_refusals",
        "_replica", "_requests", "_response", "_sender", "_sent", "_sent_bytes", "_steps", "_target", "_task",
        "_timeout", "_timer", "_waiter", "_write_waiter", "is_done", "loop", "messages", "request_complete", "thread",
    )  # fmt: skip

    # Set for a stream of requests: other calls do not pay for them.
    _context: Context
    _sent: list[tuple[int, bytes]] | None  # None: too much to send again
    _sent_bytes: int

    def __init__(
        self,
        target: Target,
        lines: bytes,
        body: bytes | None,
        *,
        requests: AsyncIterator[bytes] | None = None,
        timeout: float | None = None,
        timer: bool = True,
        streams: bool = False,
        is_idempotent: bool = False,
        model_id: str = "",
        family: set[OutgoingCall] | None = None,
        compressor: Compressor | None = None,
    ) -> None:
        self.loop = target.loop
        self.thread = target.thread
        self._target = target
        self._lines = lines
        self._body = body
        self._requests = requests
        self._timeout = timeout
        self._has_timer = timer
        self._is_idempotent = is_idempotent
        self._model_id = model_id
        self._family = family
        self._compressor = compressor
        self._flag = 0  # that of the request message
        self.messages: deque[bytes | bytearray | FlaggedMessage] | None = None
        if streams:
            self.messages = deque()
            self._reader: FrameReader | None = None
            self._queued_bytes = 0
            self._is_paused = False
        self._encoding = b"identity"
        self._response: bytes | bytearray | None = None
        self._error: Exception | None = None
        self._connection: ReplicaConnection | None = None
        self._replica: Subchannel | None = None
        self._task: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._steps: Steps | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._refusals = 0
        self.request_complete = body is not None
        self.is_done = False

    # -- for the caller -----------------------------------------------------------------------

    def start(self) -> None:
        """Send the request; on the loop."""
        if self.is_done:
            return
        timeout = self._timeout
        if timeout is not None:
            self._deadline = self.loop.time() + timeout
            if self._has_timer:
                self._timer = self.loop.call_at(self._deadline, self._end_late)
        target = self._target
        if self._requests is not None:
            self._context = copy_context()  # that of the caller, in which its iterator runs
            self._sent, self._sent_bytes = [], 0
        if target.is_ready and self._compressor is None:
            replica = target.replicas.choose(self.loop.time(), self._model_id)
            if replica is not None:
                connection = replica.idle_connection()
                if connection is not None:
                    replica.open += 1
                    self._replica = replica
                    self._send(connection)
                    return
        self._begin_slowly()

    def cancel(self) -> None:
        """End the call, and its handler; from any thread."""
        if self.is_done:
            return
        error = RpcError(grpc.StatusCode.CANCELLED, CANCELLED)
        if asyncio._get_running_loop() is self.loop:
            self.fail(error)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.fail, error)

    async def response(self) -> bytes | bytearray:
        """Return the one response message.

        Raises:
            RpcError: The call has ended with an error status.
        """
        while not self.is_done:
            await self._next_change()
        if self._error is not None:
            raise self._error
        assert self._response is not None
        return self._response

    async def next_message(self) -> bytes | bytearray | None:
        """Return the next response message of a stream, or None after the last.

        Raises:
            RpcError: The call has ended with an error status.
        """
        while not self.messages:
            if self.is_done:
                if self._error is not None:
                    raise self._error
                return None
            await self._next_change()
        message = self.take_message()
        return await self._inflate(message) if type(message) is FlaggedMessage else message

    def take_message(self) -> bytes | bytearray | FlaggedMessage:
        """Return the next response message of a stream, which has arrived; a compressed one as it is."""
        message = self.messages.popleft()  # type: ignore[union-attr]  # the caller has looked
        self._queued_bytes -= len(message) + _MESSAGE_COST
        if self._is_paused and self._queued_bytes < LOW_WATER and self._connection is not None:
            self._is_paused = False
            self._connection.resume()
        return message

    async def _inflate(self, message: FlaggedMessage) -> bytes:
        from sdk._channel.compression import inflate

        try:
            return await inflate(message.flag, message.data, self._encoding)
        except RpcError as error:
            self.fail(error)
            raise

    def _next_change(self) -> Awaitable[object]:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            return asyncio.wait((waiter,))  # another task waits, too, and may be cancelled alone
        self._waiter = waiter = self.loop.create_future()
        return waiter

    # -- sending ------------------------------------------------------------------------------

    def _send(self, connection: ReplicaConnection) -> None:
        self._connection = connection
        lines, body = self._lines, self._body
        if self._deadline is not None:
            lines += timeout_line(self._deadline - self.loop.time())
        if body is not None:
            length = len(body)
            head = b"%scontent-length: %d\r\n\r\n%s" % (lines, length + 5, pack_prefix(self._flag, length))
            connection.send(self, head, body)
        else:
            connection.send(self, b"%stransfer-encoding: chunked\r\n\r\n" % lines)
            if self._steps is None:
                self._steps = Steps(self._send_requests(), self._write_requests)
                self._sender = self.loop.create_task(self._steps, context=self._context)
            else:  # another replica has refused the call
                for flag, message in self._sent or ():
                    self._steps.add(flag, len(message), message)
                self._steps.flush()
                if self.request_complete:
                    connection.end_requests()
            self.wake_writer()

    async def _send_requests(self) -> None:
        requests, steps = self._requests, self._steps
        assert requests is not None
        assert steps is not None
        compressor, flag = self._compressor, 0
        try:
            async for message in requests:
                if compressor is not None:
                    flag, message = await compressor.compress_async(message)
                if self._connection is None or not self._connection.writable:
                    await self._wait_writable()
                    if self._connection is None:
                        return
                if self._sent is not None:
                    self._remember(flag, message)
                steps.add(flag, len(message), message)
            await self._wait_writable()
            steps.flush()
            self.request_complete = True
            if self._connection is not None:
                self._connection.end_requests()
        except asyncio.CancelledError:
            self.fail(RpcError(grpc.StatusCode.CANCELLED, "the iterator of the requests was cancelled"))
            raise
        except Exception as error:
            self.fail(error)  # the caller's own

    async def _wait_writable(self) -> None:
        """Wait until the replica reads, or the call, which a replica refused, has another one."""
        while not self.is_done and (self._connection is None or not self._connection.writable):
            self._write_waiter = self.loop.create_future()
            await self._write_waiter

    def _write_requests(self, chunk: bytes, burst: int, messages: int) -> None:
        if self._connection is not None:
            self._connection.write(chunk)

    def _remember(self, flag: int, message: bytes) -> None:
        """Keep the first messages, for the case that the replica refuses the call."""
        assert self._sent is not None
        self._sent.append((flag, message))
        self._sent_bytes += len(message) + _MESSAGE_COST
        if self._sent_bytes > _REPLAYED_BYTES:
            self._sent = None

    def wake_writer(self) -> None:
        """Continue to send: there is room again."""
        waiter = self._write_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _begin_slowly(self) -> None:
        # In an empty context: a connection outlives the call that needed it first.
        self._task = self.loop.create_task(self._begin(), context=Context())

    async def _begin(self) -> None:
        """Wait for a replica, connect to it, and send the request."""
        try:
            if self._compressor is not None and self._body is not None:
                self._flag, self._body = await self._compressor.compress_async(self._body)
                self._compressor = None  # not again for another replica
            while not self.is_done:
                replica = await self._target.wait_ready(self._model_id)
                if replica is None:
                    if self._requests is not None:
                        raise RpcError(grpc.StatusCode.UNIMPLEMENTED, self._target.describe_fallback())
                    self._send(self._target.fallback(self._model_id))
                    return
                connection = replica.idle_connection()
                replica.open += 1
                try:
                    connection = connection or await replica.connect()
                except (OSError, TimeoutError):
                    replica.open -= 1
                    self._target.replicas.mark_failed(replica, self.loop.time())
                    continue
                except BaseException:
                    replica.open -= 1
                    raise
                if self.is_done:
                    replica.open -= 1
                    replica.release(connection)
                    return
                self._replica = replica
                self._send(connection)
                return
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.fail(error)
        finally:
            self._task = None

    # -- driven by the connection -------------------------------------------------------------

    def succeed(self, data: bytes) -> None:
        """Take the whole response of a unary call."""
        self._response = data
        self._connection = None
        self._finish()

    def head_received(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the head of a response."""
        for name, value in headers:
            if name == b"grpc-encoding":
                self._encoding = value
                self.thread = 0

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes of the response's body."""
        messages = self.messages
        if messages is None:
            if self._response is None:
                self._response = data
            elif isinstance(self._response, bytearray):
                self._response += data
            else:
                self._response = bytearray(self._response + data)
            return
        if self._reader is None:
            self._reader = FrameReader(_MAX_LENGTH, self._encoding)
        new = self._reader.feed(data)  # type: ignore[arg-type]  # a bytearray is the whole body of a unary call
        if new:
            messages.extend(new)
            self._queued_bytes += sum(map(len, new)) + len(new) * _MESSAGE_COST
            if self._queued_bytes > HIGH_WATER and self._connection is not None:
                self._is_paused = True
                self._connection.pause()
            self._wake()

    def response_complete(self, http_status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Take the end of the response."""
        self._connection = None
        error: Exception | None = error_of(http_status, fields)
        if error is None and self.messages is None:
            body = self._response or b""
            flag = body[0] if body else 0
            if flag:  # it is cut like one that is not compressed
                body = bytearray(body)
                body[0] = 0
            try:
                self._response = single_message(body, _MAX_LENGTH, self._encoding)
            except FrameError as wrong:
                error = RpcError(grpc.StatusCode.INTERNAL, f"response: {wrong}")
            else:
                if flag:
                    self._task = self.loop.create_task(self._inflate_response(flag), context=Context())
                    return
        elif isinstance(error, RpcError) and error.code is grpc.StatusCode.UNAVAILABLE:
            if error.details == REPLICA_DIED:  # sent by the process that outlives it, on this connection, idle now
                self._distrust_replica()
            elif error.details == SHUTTING_DOWN and self._retry_lost():
                return
        self._error = error
        self._finish()

    async def _inflate_response(self, flag: int) -> None:
        from sdk._channel.compression import inflate

        assert self._response is not None
        try:
            self._response = await inflate(flag, self._response, self._encoding)
        except Exception as error:
            self._error = error
        self._finish()

    def refused(self) -> None:
        """Send the call to another replica: this one leaves, and has not looked at it."""
        self._distrust_replica()
        self._leave_replica()
        self._refusals += 1
        if self._refusals > _MAX_REFUSALS or (self._requests is not None and self._sent is None):
            self._error = RpcError(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)
            self._finish()
        else:
            self._target.count_retry("refused")
            self._begin_slowly()

    def connection_lost(self, *, has_response: bool, was_sent: bool) -> None:
        """Take that the replica is gone.

        Args:
            has_response: The response has begun.
            was_sent: The replica may have the whole request.
        """
        if not was_sent and not has_response:
            self.refused()
            return
        self._distrust_replica()
        if has_response or not self._retry_lost():
            self._connection = None
            self._error = RpcError(grpc.StatusCode.UNAVAILABLE, REPLICA_DIED)
            self._finish()

    def malformed(self, reason: str) -> None:
        """Take that the response is not one of a wire server."""
        self._connection = None
        self._error = RpcError(grpc.StatusCode.INTERNAL, f"the response of the replica is malformed: {reason}")
        self._finish()

    def _retry_lost(self) -> bool:
        """Send an idempotent call again, once, if no part of its response has arrived."""
        if not self._is_idempotent or self._requests is not None or self.messages or self._response is not None:
            return False
        self._is_idempotent = False
        self._target.count_retry("lost")
        self._leave_replica()
        self._begin_slowly()
        return True

    # -- the end ------------------------------------------------------------------------------

    def _end_late(self) -> None:
        self.fail(RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded."))

    def fail(self, error: Exception) -> None:
        """End the call with an error; its handler is cancelled. Does nothing after the end."""
        if self.is_done:
            return
        self._error = error
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.cancel()
        if self.messages:
            self.messages.clear()
        self._finish()

    def _distrust_replica(self) -> None:
        """Have the next call connect again: a process that dies still has its other connections, for a moment."""
        if self._replica is not None:
            self._replica.close_idle(float("inf"))

    def _leave_replica(self) -> None:
        self._connection = None
        if self._replica is not None:
            self._replica.open -= 1
            self._replica = None

    def _finish(self) -> None:
        self.is_done = True
        replica = self._replica
        if replica is not None:
            replica.open -= 1
            self._replica = None
        if self._family is not None:
            self._family.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self._sender is not None and self._sender is not asyncio.current_task():
            self._sender.cancel()
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

"""One call's life inside a replica: admission, handler, answer, end.

On every request's way, and written for speed: no object is made, and nothing is parsed, that the call may not need.
A call is driven by its connection (``feed``, ``end_of_request``, ``connection_lost``) and writes to a transport; it
holds no socket, so that tests drive it with a plain object.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sdk.context import CallState, ServicerContext, enter_call
from sdk.errors import RpcError
from sdk.wire import metadata as md
from sdk.wire.context_view import ContextView
from sdk.wire.frames import ACCEPT_ENCODING, FrameError, FrameReader, is_known_encoding, only_message, pack_prefix

if TYPE_CHECKING:
    from sdk.wire.context_view import Transport
    from sdk.wire.routes import Route
    from sdk.wire.server import WireServer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n"

CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 1, 4, 8, 12, 13, 14

# Bytes of request messages that wait for the handler: above the first the connection is no longer read.
HIGH_WATER, LOW_WATER = 1 << 20, 1 << 19

# A percent-encoded status message longer than this could exceed the 8 KiB that clients accept in trailers.
MESSAGE_LIMIT = 6144

UNKNOWN_PATIENCE_S = 0.05


class Call(ContextView):
    """One call.

    Args:
        server: Limits, counters and hooks.
        transport: Where the answer goes.
        route: The method and its handler; None when the path is unknown.
        path: The request's path.
        headers: The request's headers in order, names in lower case.
        on_finished: Called once, when the answer has been handed to the transport (or can't be any more).
    """

    __slots__ = (
        "_body",
        "_complete",
        "_encoding",
        "_on_finished",
        "_paused",
        "_queued_bytes",
        "_reader",
        "_stream_error",
        "_task",
        "_timer",
        "_waiter",
        "_write_waiter",
        "aborted",
        "code",
        "context",
        "details",
        "messages",
        "path",
        "slot_held",
    )

    def __init__(
        self,
        server: WireServer,
        transport: Transport,
        route: Route | None,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        on_finished: Callable[[Call], None],
    ) -> None:
        self.server = server
        self.transport = transport
        self.route = route
        self.path = path
        self.headers = headers
        self._fields = dict(headers)  # the last value of a repeated key wins, as in Ray Serve
        self._on_finished = on_finished
        self._body: list[bytes] = []
        self._queued_bytes = 0
        self._reader: FrameReader | None = None
        self._complete = False
        self._finished = False
        self._head_sent = False
        self._paused = False
        self.writable = True
        self._waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._stream_error: FrameError | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._cancel_reason: tuple[int, str] | None = None
        self._request_id: bytes | None = None
        self._metadata: md.Metadata | None = None
        self._trailing: md.Metadata = ()
        self._done_callbacks: list[Callable[[], None]] | None = None
        self._encoding = b"identity"
        self.messages: deque[bytes] | None = None
        self.slot_held = False
        self.code: int | None = None
        self.details = ""
        self.aborted: RpcError | None = None
        self.context: ServicerContext | None = None

    # -- driven by the connection -------------------------------------------------------------

    @property
    def is_grpc(self) -> bool:
        """Whether the request says that it is a gRPC call."""
        return self._fields.get(b"content-type", b"").startswith(b"application/grpc")

    def headers_complete(self) -> None:
        """The request's headers are there: start what need not wait for the body."""
        route = self.route
        fields = self._fields
        if route is None:
            # Whether the client's stream ever ends is not known for a method that is not: answer before long.
            self._timer = self.server.loop.call_later(UNKNOWN_PATIENCE_S, self._answer_unknown)
            return
        encoding = fields.get(b"grpc-encoding")
        if encoding is not None:
            self._encoding = encoding
        timeout = fields.get(b"grpc-timeout")
        limit = self.server.settings.request_timeout_s
        if timeout is not None or limit is not None:
            self._set_deadline(timeout, limit)
        if route.client_streaming and not self._finished:
            if not is_known_encoding(self._encoding):
                self._refuse_encoding()
                return
            self._reader = FrameReader(self.server.settings.max_receive_message_length, self._encoding)
            self.messages = deque()
            self._admit()

    def feed(self, data: bytes) -> None:
        """Take bytes of the request's body."""
        if self._finished:
            return
        if self.messages is None:
            self._queued_bytes += len(data)
            # One message: its length is known from the first bytes, so a longer body is refused before it is held.
            if self._queued_bytes > self.server.settings.max_receive_message_length + 5:
                self.finish_with(
                    RESOURCE_EXHAUSTED,
                    "request message is longer than the limit of "
                    f"{self.server.settings.max_receive_message_length} bytes (max_receive_message_length)",
                )
                return
            self._body.append(data)
            return
        assert self._reader is not None
        try:
            new = self._reader.feed(data)
        except FrameError as error:
            self._stream_error = error
            self._wake_reader()
            return
        if new:
            self.messages.extend(new)
            self._queued_bytes += sum(map(len, new))
            if self._queued_bytes > HIGH_WATER and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            self._wake_reader()

    def end_of_request(self) -> None:
        """The request's body is complete."""
        self._complete = True
        if self._finished:
            return
        if self.messages is not None:
            assert self._reader is not None
            if self._reader.buffered and self._stream_error is None:
                self._stream_error = FrameError(INTERNAL, "the request ended before its last message was complete")
            self._wake_reader()
        elif self.route is None:
            self._answer_unknown()
        elif not is_known_encoding(self._encoding):
            self._refuse_encoding()
        else:
            self._admit()

    def connection_lost(self) -> None:
        """The client is gone (Envoy closes the connection when the client cancels)."""
        self.cancel(CANCELLED, "the client cancelled the call")

    @property
    def request_complete(self) -> bool:
        """Whether the whole body of the request was read."""
        return self._complete

    def _answer_unknown(self) -> None:
        service, _, method = self.path.decode("latin-1").lstrip("/").rpartition("/")
        self.finish_with(UNIMPLEMENTED, self.server.describe_unknown(self.header(b"application"), service, method))

    # -- admission ----------------------------------------------------------------------------

    def _admit(self) -> None:
        server = self.server
        settings = server.settings
        if server.ongoing < settings.max_ongoing_requests:
            server.ongoing += 1
            self.start()
        elif settings.max_queued_requests < 0 or server.count_queued() < settings.max_queued_requests:
            server.queue.append(self)
        else:
            self.finish_with(
                RESOURCE_EXHAUSTED,
                f"Request dropped due to backpressure (num_queued_requests={server.count_queued()}, "
                f"max_queued_requests={settings.max_queued_requests}).",
            )

    def start(self) -> None:
        """Run the handler; the caller has counted the call as ongoing."""
        self.slot_held = True
        assert self.route is not None
        # Named, because asyncio would otherwise format a name for each.
        self._task = asyncio.Task(self._run(self.route), loop=self.server.loop, name="grpc-call")

    async def _run(self, route: Route) -> None:
        try:
            enter_call(self)
            self.server.enter(self)
            await route.answer(self, route)
        except asyncio.CancelledError:
            code, details = self._cancel_reason or (CANCELLED, "the handler was cancelled")
            self.finish_with(code, details)
        except FrameError as error:
            self.finish_with(error.code, str(error))
        except BaseException as error:
            self._finish_raised(error)
            if not isinstance(error, Exception):
                raise  # SystemExit and its like end the replica, after the client has its answer
        else:
            if self.aborted is not None:
                self._finish_raised(self.aborted)
            elif not self._finished:
                self.finish_with(self.code or 0, self.details)
        finally:
            # Not when the answer is out: a handler that is cancelled keeps its place until it has ended.
            self._task_ended()

    def _task_ended(self) -> None:
        self._task = None  # it holds its context, and that the call: without the cycle nothing waits for the GC
        if self.slot_held:
            self.slot_held = False
            self.server.release()

    def take_message(self) -> bytes:
        """Return the one request message of a method that takes one; the body is complete.

        Raises:
            FrameError: The body is not one message, or it is refused.
        """
        body = self._body
        self._body = []
        return only_message(
            body[0] if len(body) == 1 else b"".join(body),
            self.server.settings.max_receive_message_length,
            self._encoding,
        )

    # -- the answer ---------------------------------------------------------------------------

    def send_only(self, data: bytes) -> None:
        """Send the one message of a unary answer together with the end of the call: one write."""
        if self._finished:
            return
        length = len(data)
        if self._head_sent or self.code or self.details or self._trailing:
            self.send(data)
            self.transport.write(self._trailers(self.code or 0, self.details))
        else:
            self._head_sent = True
            self.transport.write(
                b"%s%x\r\n%s%s\r\n0\r\ngrpc-status: 0\r\nrequest_id: %s\r\n\r\n"
                % (self.server.head, length + 5, pack_prefix(0, length), data, self._id())
            )
        self._finish()

    def send(self, data: bytes) -> None:
        """Send one message of a stream."""
        if self._finished:
            return
        if self._head_sent:
            head = b""
        else:
            self._head_sent = True
            head = self.server.head
        length = len(data)
        self.transport.write(b"%s%x\r\n%s%s\r\n" % (head, length + 5, pack_prefix(0, length), data))

    def finish_with(self, code: int, details: str) -> None:
        """End the call with a status, unless it has ended."""
        if self._finished:
            return
        head = b"" if self._head_sent else self.server.head
        self._head_sent = True
        self.transport.write(head + self._trailers(code, details))
        self._finish()

    def _finish_raised(self, error: BaseException) -> None:
        answered = self.aborted or self.server.translate(error)
        if isinstance(answered, RpcError):
            try:
                self._trailing = md.check((*self._trailing, *answered.trailing_metadata))
            except (TypeError, ValueError) as wrong:
                self.finish_with(INTERNAL, f"the handler raised {answered!r} with metadata that can't be sent: {wrong}")
            else:
                self.finish_with(answered.code.value[0], answered.details)
            return
        if not self._finished:
            self.server.log_failure(self, error)
        style = self.server.settings.error_details
        self.finish_with(INTERNAL, md.describe_exception(error if style == "traceback" else answered, style))

    def _trailers(self, code: int, details: str) -> bytes:
        message = b"grpc-message: %s\r\n" % md.fit_message(details, MESSAGE_LIMIT) if details else b""
        extra = md.encode(self._trailing) if self._trailing else b""
        return b"0\r\ngrpc-status: %d\r\n%s%srequest_id: %s\r\n\r\n" % (code, message, extra, self._id())

    def _finish(self) -> None:
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()  # what is left of the request is read and dropped
        self._wake_reader()
        self.set_writable(True)
        if self._done_callbacks:
            for callback in self._done_callbacks:
                self.server.loop.call_soon(callback)
        self._on_finished(self)

    # -- cancellation and deadlines -----------------------------------------------------------

    def cancel(self, code: int, details: str) -> None:
        """End the call from outside: the handler is cancelled, and the client gets this status if it is still there."""
        if self._finished or self._cancel_reason is not None:
            return
        self._cancel_reason = (code, details)
        self.server.leave(self)
        if code == CANCELLED:
            self._finish()  # nobody is there to read an answer
        else:
            self.finish_with(code, details)  # the client does not wait for the handler to end
        task = self._task
        if task is not None:
            task.cancel()
            if inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]  # it is one
                self._task_ended()  # a task that is cancelled before its first step runs nothing, not even its end

    def _set_deadline(self, timeout: bytes | None, limit: float | None) -> None:
        seconds = md.parse_timeout(timeout) if timeout is not None else None
        if timeout is not None and seconds is None:
            self.finish_with(INTERNAL, f"malformed grpc-timeout {timeout.decode('latin-1')!r}")
            return
        details = "Deadline exceeded."
        if limit is not None and (seconds is None or limit < seconds):
            seconds, details = limit, f"Request timed out after {limit}s."
        assert seconds is not None
        loop = self.server.loop
        self._deadline = loop.time() + seconds
        self._timer = loop.call_at(self._deadline, self.cancel, DEADLINE_EXCEEDED, details)

    # -- flow control -------------------------------------------------------------------------

    def set_writable(self, writable: bool) -> None:
        """The transport's buffer is below (or above) its limit."""
        self.writable = writable
        waiter = self._write_waiter
        if writable and waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait_writable(self) -> None:
        """Wait until the client has taken enough of what was sent."""
        while not self.writable and not self._finished:
            self._write_waiter = self.server.loop.create_future()
            await self._write_waiter

    def _wake_reader(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def next_message(self) -> bytes | None:
        """Return the bytes of the next request message, or None after the last.

        Raises:
            FrameError: The client sent something that is not a message.
            asyncio.CancelledError: The client is gone; a stream that was cut never looks complete.
        """
        messages = self.messages
        assert messages is not None
        while not messages:
            if self._cancel_reason is not None or (self._finished and not self._complete):
                raise asyncio.CancelledError(self._cancel_reason and self._cancel_reason[1])
            if self._stream_error is not None:
                raise self._stream_error
            if self._complete:
                return None
            self._waiter = self.server.loop.create_future()
            await self._waiter
        message = messages.popleft()
        self._queued_bytes -= len(message)
        if self._paused and self._queued_bytes < LOW_WATER:
            self._paused = False
            self.transport.resume_reading()
        return message

    def _refuse_encoding(self) -> None:
        self._trailing = (("grpc-accept-encoding", ACCEPT_ENCODING.decode()),)
        self.finish_with(UNIMPLEMENTED, f"grpc-encoding {self._encoding.decode('latin-1')!r} is not supported")


if TYPE_CHECKING:
    _: Callable[[Call], CallState] = lambda call: call  # noqa: E731  # a Call is what a context needs

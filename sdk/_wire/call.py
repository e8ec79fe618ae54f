"""One call inside a replica, from its admission to its trailers.

On the path of every request, and written for speed: no object is made, and nothing is parsed, that the call may not
need. The connection drives a call (``feed``, ``end_of_request``, ``connection_lost``), and the call writes to a
transport; it holds no socket, so that tests can drive it with a plain object.

The class is in one file because its parts share one state: admission, the response, flow control, cancellation and
``sdk.context.CallState``. Calls through another object would cost each message.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from grpc.aio import EOF

from sdk._replica_protocol import API_KEY_HEADER, TOKEN_HEADER
from sdk._wire import frames
from sdk._wire import metadata as md
from sdk._wire.call_counts import ONE_MESSAGE
from sdk._wire.compression import compressor_for
from sdk._wire.frames import (
    LARGE,
    PREFIX_LENGTH,
    FlaggedMessage,
    FrameError,
    FrameReader,
    MalformedRequest,
    pack_prefix,
    single_message,
)
from sdk._wire.metadata import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from sdk._wire.peer import auth_context_of, peer_of
from sdk._wire.send_buffer import enlarge_send_buffer
from sdk._wire.status_trailers import error_trailers
from sdk._wire.steps import MESSAGE_BURST, Steps
from sdk.context import CallState, ServicerContext, enter_call
from sdk.errors import RpcError

if TYPE_CHECKING:
    import grpc

    from sdk._wire.compression import Compressor
    from sdk._wire.crash_trailers import StreamGuard
    from sdk._wire.host import Host
    from sdk._wire.inner_calls import InnerCalls
    from sdk._wire.route import Route
    from sdk.context import MetadataPairs

_TOKEN, _API_KEY = TOKEN_HEADER.encode(), API_KEY_HEADER.encode()
# Seconds that a request for an unknown method gets to end: its stream may never do.
UNKNOWN_METHOD_DELAY_S = 0.05
# Seconds that a handler has to end after a cancellation before it is cancelled again: time for its own cleanup.
CANCEL_AGAIN_S = 10.0
# Most bytes that a response message gets around it: a chunk's length, a message's prefix, two line ends.
_FRAMING = 32
# What one message adds to the numbers of the metrics, apart from the bytes of a body with its prefix.
_ONE_FRAMED = ONE_MESSAGE - PREFIX_LENGTH

# Bytes of request messages that wait for the handler: above the first the connection is no longer read, below the
# second it is read again. Each message counts for more than its length, so that a flood of empty ones is stopped too.
HIGH_WATER, LOW_WATER = 1 << 20, 1 << 19
MESSAGE_COST = 64

# Bytes that a stream sends before other calls get their turn; each message counts for more than its length. A handler
# that never waits, with a client that reads everything, would otherwise block the loop.
BURST = 1 << 18


class Transport(Protocol):
    """The methods of ``asyncio.Transport`` that a call needs."""

    def write(self, data: bytes, /) -> None: ...
    def writelines(self, pieces: Iterable[bytes], /) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def get_extra_info(self, name: str, /) -> Any: ...
    def close(self) -> None: ...


class Call:
    """One call.

    Args:
        host: Limits, counters and hooks.
        transport: Takes the response.
        route: The method and its handler; None if the path is unknown.
        path: The request's path.
        headers: The request's headers in order, names in lower case.
        fields: The headers by name: the last value of a repeated one wins, as in Ray Serve.
        on_finished: Called once, when the response has been handed to the transport (or no longer can be).
    """

    __slots__ = (
        "_body", "_burst", "_cancel_reason", "_complete", "_deadline", "_done_callbacks", "_encoding", "_fields",
        "_finished", "_further", "_head_sent", "_is_congested", "_metadata", "_on_finished", "_queued_bytes", "_reader",
        "_request_id", "_skips_first", "_steps", "_task", "_timer", "_trailing", "_waiter", "_write_waiter", "aborted",
        "code", "compressor", "context", "details", "headers", "host", "inner", "messages", "path", "paused", "route",
        "running", "status", "stream_guard", "transport", "writable",
    )  # fmt: skip

    _skips_first: bool  # not set by the constructor: a call that compresses nothing does not pay for it

    def __init__(
        self,
        host: Host,
        transport: Transport,
        route: Route | None,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
        on_finished: Callable[[Call], None],
    ) -> None:
        self.host = host
        self.transport = transport
        self.route = route
        self.path = path
        self.headers = headers
        self._fields = fields
        self._on_finished = on_finished
        self._body: bytes | bytearray = b""
        self._queued_bytes = 0
        self._reader: FrameReader | None = None
        self._complete = False
        self._finished = False
        self._head_sent = False
        self.paused = False
        self.writable = True
        self._is_congested = False
        self._burst = 0
        self._waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._steps: Steps | None = None
        self._further: Steps | None = None  # once the head is sent: they take further messages
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._cancel_reason: tuple[int, str] | None = None
        self._request_id: bytes | None = None
        self._metadata: md.Metadata | None = None
        self._trailing: md.Metadata = ()
        self._done_callbacks: list[Callable[[], object]] | None = None
        self._encoding = b"identity"
        self.messages: deque[frames.Message] | None = None
        self.running = 0  # the handler's task and its threads: the call counts as ongoing until all have ended
        self.status = 0  # a response that is sent with its trailers is OK
        self.code: int | None = None
        self.details = ""
        self.aborted: RpcError | None = None
        self.compressor: Compressor | None = None
        self.context: ServicerContext | None = None
        self.stream_guard: StreamGuard | None = None
        self.inner: InnerCalls | None = None

    # -- driven by the connection -------------------------------------------------------------

    def headers_complete(self) -> None:
        """Start the work that need not wait for the request's body."""
        route = self.route
        fields = self._fields
        if route is None:
            self._timer = self.host.loop.call_later(UNKNOWN_METHOD_DELAY_S, self._finish_unknown)
            return
        encoding = fields.get(b"grpc-encoding")
        if encoding is not None:
            self._encoding = encoding
            if not route.client_streaming:
                self.route = route.inflating
        timeout = fields.get(b"grpc-timeout")
        limit = self.host.settings.request_timeout_s
        if timeout is not None or limit is not None:
            self._set_deadline(timeout, limit)
        if route.client_streaming and not self._finished:
            if not frames.is_known_encoding(self._encoding):
                self._refuse_encoding()
                return
            self._reader = FrameReader(self.host.settings.max_receive_message_length, self._encoding)
            self.messages = deque()
            self._admit()

    def feed(self, data: bytes) -> None:
        """Take bytes of the request's body."""
        if self._finished:
            return
        if self.messages is not None:
            self.queue_messages(data)
        elif not self._body:
            self._body = data
        elif self.route is not None:
            self._extend_body(data)

    def _extend_body(self, data: bytes) -> None:
        try:
            self._body = frames.extend_body(self._body, data, self.host.settings.max_receive_message_length)
        except FrameError as error:
            self._body = b""
            if frames.is_known_encoding(self._encoding):
                self.finish_with(error.code, str(error))
            else:
                self._refuse_encoding()

    def end_of_request(self) -> None:
        """Take the end of the request's body."""
        self._complete = True
        if self._finished:
            return
        if self.messages is not None:
            assert self._reader is not None
            self._reader.end()
            self._wake_reader()
        elif self.route is None:
            self._finish_unknown()
        elif not frames.is_known_encoding(self._encoding):
            self._refuse_encoding()
        else:
            self._admit()

    def connection_lost(self) -> None:
        """Cancel the call: Envoy closes the connection when the client cancels or disconnects."""
        self.cancel(CANCELLED, "the client cancelled the call", client_gone=True)

    @property
    def request_complete(self) -> bool:
        """True once the whole body of the request was read."""
        return self._complete

    def _finish_unknown(self) -> None:
        self.host.answer_unknown(self)

    # -- admission ----------------------------------------------------------------------------

    def _admit(self) -> None:
        host = self.host
        settings = host.settings
        if host.ongoing < settings.max_ongoing_requests:
            host.ongoing += 1
            self.start()
        elif settings.max_queued_requests < 0 or host.count_queued() < settings.max_queued_requests:
            host.queue[self] = host.loop.time()
        else:
            host.count_rejected(self.path.decode("latin-1"), RESOURCE_EXHAUSTED, "overflow")
            self.finish_with(
                RESOURCE_EXHAUSTED,
                f"Request dropped due to backpressure (num_queued_requests={host.count_queued()}, "
                f"max_queued_requests={settings.max_queued_requests}).",
            )

    def start(self) -> None:
        """Run the handler; the caller has counted the call as ongoing."""
        self.running = 1
        route = self.route
        assert route is not None
        work: Coroutine[Any, Any, None] = self._run(route)
        if route.server_streaming:
            work = self._steps = Steps(work, self._write_chunk)
        # Named, because asyncio would otherwise format a name for each.
        self._task = asyncio.Task(work, loop=self.host.loop, name="grpc-call")

    async def _run(self, route: Route) -> None:
        try:
            enter_call(self)
            self.host.on_start(self)
            await route.answer(self, route)
        except asyncio.CancelledError:
            if self._cancel_reason is None:
                self.host.on_cancel(self)
            code, details = self._cancel_reason or (CANCELLED, "the handler was cancelled")
            self.finish_with(code, details)
        except FrameError as error:
            self.finish_refused(error)
        except BaseException as error:
            self._finish_raised(error)
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                self.host.on_exit(self, error)
        else:
            if self.aborted is not None:
                self._finish_raised(self.aborted)
            elif not self._finished:
                self.finish_with(self.code or 0, self.details)
        finally:
            # Both refer to the call: without the cycle nothing waits for the GC.
            self._task = self._steps = None
            if self._cancel_reason is not None and self._timer is not None:
                self._timer.cancel()  # that of _cancel_task
            # Not when the response is out: a cancelled handler counts as ongoing until it has ended.
            self.running -= 1
            if not self.running:
                self.host.release_slot()

    def end_thread(self) -> None:
        """Count a thread of the handler that ran on after the end of the call no longer."""
        self.running -= 1
        if not self.running:
            self.host.release_slot()

    def finish_refused(self, error: FrameError) -> None:
        """End a call whose request is not one of its method."""
        self.finish_with(error.code, str(error))

    async def inflate(self) -> None:
        """Decompress the one request message in a thread if it is long; :meth:`take_message` then has less to do.

        Raises:
            FrameError: The body is not one message, or it is refused.
        """
        body, limit = self._body, self.host.settings.max_receive_message_length
        if len(body) >= frames.INFLATE_IN_THREAD_BYTES and body[0]:
            self._body = await asyncio.to_thread(frames.inflate_body, body, limit, self._encoding)

    def take_message(self) -> bytes | bytearray:
        """Return the one request message of a method that takes one; the body is complete.

        Raises:
            FrameError: The body is not one message, or it is refused.
        """
        body, self._body = self._body, b""
        self.route.counts.received += len(body) + _ONE_FRAMED  # type: ignore[union-attr]  # its handler asks
        return single_message(body, self.host.settings.max_receive_message_length, self._encoding)

    def peek_message(self) -> bytes | bytearray:
        """Return what :meth:`take_message` returns, without taking it."""
        body = bytes(self._body)  # a bytearray would become the message
        return single_message(body, self.host.settings.max_receive_message_length, self._encoding)

    # -- the response -------------------------------------------------------------------------

    def send_only(self, data: bytes, flag: int = 0) -> None:
        """Send the one message of a unary response together with the end of the call, in one write."""
        if self._finished:
            return
        length = len(data)
        if self._head_sent or self.code or self.details or self._trailing or flag or length >= LARGE:
            self.send(data, flag, is_last=True)
        else:
            self._head_sent = True
            self.route.counts.sent += length + ONE_MESSAGE  # type: ignore[union-attr]  # its handler has answered
            self.transport.write(
                b"%s%x\r\n%s%s\r\n0\r\ngrpc-status: 0\r\nrequest_id: %s\r\n\r\n"
                % (self.host.head, length + 5, pack_prefix(0, length), data, self._id())
            )
            self._finish()

    def send(self, data: bytes, flag: int = 0, *, is_last: bool = False) -> None:
        """Send one message.

        Args:
            data: Its bytes.
            flag: 1 if it is compressed, otherwise 0.
            is_last: End the call with it; in the same write, if nothing was sent before.
        """
        steps = self._further
        if steps is not None and steps.is_running and len(data) < LARGE:
            steps.add(flag, len(data), data)
            return
        if self._finished:
            self.writable = False  # the handler's next wait ends it
            return
        length = len(data)
        if self._steps is not None:
            self._steps.flush()
        self._count_burst(length + MESSAGE_BURST, 1)
        trailers = b""
        if self._head_sent:
            head = b""
            if self.stream_guard is not None:
                self.stream_guard.before_write(length + _FRAMING)
        else:
            if is_last:
                head, trailers = self._head(), self._trailers(self.code or 0, self.details)
            else:
                head = self._begin_stream()
            self._head_sent = True
        self._further = self._steps
        head = b"%s%x\r\n%s" % (head, length + 5, pack_prefix(flag, length))
        if length < LARGE:
            self.transport.write(b"%s%s\r\n%s" % (head, data, trailers))
        else:  # a long message is not copied
            if is_last:
                enlarge_send_buffer(self.transport)
            self.transport.writelines((head, data, b"\r\n" + trailers))
        if is_last:
            if not trailers:
                self.transport.write(self._trailers(self.code or 0, self.details))
            self._finish()

    def _write_chunk(self, chunk: bytes, burst: int, messages: int) -> None:
        if self._finished:
            return  # the client is gone
        self._count_burst(burst, messages)
        if self.stream_guard is not None:
            self.stream_guard.before_write(len(chunk))
        self.transport.write(chunk)

    def _count_burst(self, burst: int, messages: int) -> None:
        """Count bytes that are sent before the next wait, and messages for the metrics."""
        if self.route is not None:
            self.route.counts.sent += burst + messages * (ONE_MESSAGE - MESSAGE_BURST)
        self._burst += burst
        if self._burst > BURST:
            self.writable = False

    def finish_with(self, code: int, details: str) -> None:
        """End the call with a status, unless it has ended."""
        if self._finished:
            return
        if self._steps is not None:
            self._steps.flush()
        trailers = self._trailers(code, details)
        self.transport.write(trailers if self._head_sent else self._without_messages(code, trailers))
        self._head_sent = True
        self._finish()

    def _finish_raised(self, error: BaseException) -> None:
        self.host.on_cancel(self)  # another call that the handler awaited at the same time may still run
        try:
            self._finish_with_error(error)
        except Exception as failure:  # its text can't be had, for example: the client gets a status all the same
            self.host.log_failure(self, failure)
            style = self.host.settings.error_details
            details = f"{type(error).__name__}; describing it raised {type(failure).__name__}"
            self.finish_with(INTERNAL, md.INTERNAL_ERROR if style == "none" else details)

    def _finish_with_error(self, error: BaseException) -> None:
        answered = self.aborted or self.host.translate_error(error)
        if isinstance(answered, RpcError):
            try:
                details, self._trailing = error_trailers(answered, self._trailing)
            except (TypeError, ValueError) as wrong:
                self.finish_with(INTERNAL, f"the handler raised {answered!r} with metadata that can't be sent: {wrong}")
            else:
                self.finish_with(answered.code.value[0], details)
            return
        if not self._finished:
            self.host.log_failure(self, error)
        style = self.host.settings.error_details
        self.finish_with(INTERNAL, md.describe_exception(error if style == "traceback" else answered, style))

    def _begin_stream(self) -> bytes:
        """Return the head of a response whose trailers are not written with it."""
        crash_trailers = self.host.crash_trailers
        if crash_trailers is not None:
            self.stream_guard = crash_trailers.guard(self.transport, self._id())
        return self._head()

    def _head(self) -> bytes:
        """Return the head of a response with messages, which may be compressed."""
        head = self.host.head
        if self.compressor is None:
            return head
        return b"%sgrpc-encoding: %s\r\n\r\n" % (head[:-2], self.compressor.encoding)

    def _without_messages(self, code: int, trailers: bytes) -> bytes:
        """Return a whole response that has no messages.

        An error is then one block of headers (``Trailers-Only`` in
        https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses): the client has no headers of the call
        before its status, and may retry it.
        """
        head = self.host.head
        if not code:
            return head + trailers
        return head[:-2].replace(b"transfer-encoding: chunked", b"content-length: 0") + trailers.removeprefix(b"0\r\n")

    def _trailers(self, code: int, details: str) -> bytes:
        self.status = code
        extra = md.encode(self._trailing) if self._trailing else b""
        message = b"grpc-message: %s\r\n" % md.fit_message(details, md.message_room(len(extra))) if details else b""
        trailers = b"0\r\ngrpc-status: %d\r\n%s%srequest_id: %s\r\n\r\n" % (code, message, extra, self._id())
        if self.stream_guard is not None:
            self.stream_guard.before_end(len(trailers))
            self.stream_guard = None
        return trailers

    def _finish(self) -> None:
        self._finished = True
        self._further = None
        if self._timer is not None:
            self._timer.cancel()
        if self.paused:
            self.paused = False
            self.transport.resume_reading()  # the rest of the request is read and dropped
        if self._waiter is not None:
            self._wake_reader()
        self.set_writable(True)
        if self.inner is not None:
            self.inner.cancel()
        if self._done_callbacks:
            for callback in self._done_callbacks:
                self.host.loop.call_soon(callback)
        self._on_finished(self)

    # -- flow control: a slow handler stops a fast client, a slow client stops a fast handler ------

    def queue_messages(self, data: bytes) -> None:
        """Take bytes of a stream of request messages."""
        assert self.messages is not None
        assert self._reader is not None
        new = self._reader.feed(data)
        if new:
            self.messages.extend(new)
            size = sum(map(len, new))
            self._queued_bytes += size + len(new) * MESSAGE_COST
            if self.route is not None:
                self.route.counts.received += size + len(new) * ONE_MESSAGE
            if self._queued_bytes > HIGH_WATER and not self.paused:
                self.paused = True
                self.transport.pause_reading()
                self.host.on_unread()
        if new or self._reader.error is not None:
            self._wake_reader()

    def _wake_reader(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def next_message(self) -> bytes | bytearray | None:
        """Return the bytes of the next request message, or None after the last.

        Raises:
            FrameError: The client sent something that is not a message.
            asyncio.CancelledError: The client is gone. A stream that was cut never looks complete.
        """
        messages, reader = self.messages, self._reader
        assert messages is not None
        assert reader is not None
        while not messages:
            if self._cancel_reason is not None or (self._finished and not self._complete):
                raise asyncio.CancelledError(self._cancel_reason and self._cancel_reason[1])
            if reader.error is not None:
                raise reader.error
            if self._complete:
                return None
            self._waiter = self.host.loop.create_future()
            await self._waiter
        message = messages.popleft()
        self._queued_bytes -= len(message) + MESSAGE_COST
        if self.paused and self._queued_bytes < LOW_WATER:
            self.paused = False
            self.transport.resume_reading()
        return await self._inflate(reader, message) if isinstance(message, FlaggedMessage) else message

    async def _inflate(self, reader: FrameReader, message: FlaggedMessage) -> bytes:
        if len(message) < frames.INFLATE_IN_THREAD_BYTES:
            return reader.decompress(message)
        try:
            return await asyncio.to_thread(reader.decompress, message)
        except asyncio.CancelledError:
            # The handler itself may have limited its wait (``wait_for``): the message is there if it asks again.
            assert self.messages is not None
            self.messages.appendleft(message)
            self._queued_bytes += len(message) + MESSAGE_COST
            raise

    def set_writable(self, writable: bool) -> None:
        """Take that the transport's buffer is below (or above) its limit."""
        self.writable = writable
        self._is_congested = not writable
        waiter = self._write_waiter
        if writable and waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait_writable(self) -> None:
        """Wait until the client has read enough of the response, and give other calls their turn.

        Raises:
            asyncio.CancelledError: The call has ended.
        """
        self._burst = 0
        if not self._is_congested:
            self.writable = True
            await asyncio.sleep(0)
        while self._is_congested and not self._finished:
            self._write_waiter = self.host.loop.create_future()
            await self._write_waiter
        if self._finished:
            await asyncio.sleep(0)  # the cancellation that comes with the end arrives here, unless it came before:
            raise asyncio.CancelledError  # a handler that swallowed it must not run forever

    # -- cancellation and deadlines -----------------------------------------------------------

    def cancel(self, code: int, details: str, *, client_gone: bool = False) -> None:
        """End the call from outside: cancel the handler, and send the client this status unless it is gone."""
        if self._finished or self._cancel_reason is not None:
            return
        self._cancel_reason = (code, details)
        self.status = code
        self._body = b""
        self.host.queue.pop(self, None)
        self.host.on_cancel(self)
        if client_gone:
            if self.stream_guard is not None:
                self.stream_guard.drop()
                self.stream_guard = None
            self._finish()
        else:
            self.finish_with(code, details)  # the client does not wait for the handler to end
        if self._task is not None:
            # Not at once: a task that is cancelled before its first step runs nothing, and would stay counted.
            self.host.loop.call_soon(self._cancel_task)

    def _cancel_task(self, *, is_first: bool = True) -> None:
        """Cancel the handler's task, and repeat it until the task has ended.

        A coroutine can swallow a cancellation: with a bare ``except``, or in what it awaits (``asyncio.wait_for`` up to
        Python 3.11 does if its own result arrives at the same moment). If it were cancelled only once and then waited
        for something that never comes, it would count as ongoing until the process ends, and the calls queued behind it
        would wait as long.
        """
        task = self._task
        if task is None:
            return
        if not is_first:
            self.host.log_swallowed_cancellation(self, CANCEL_AGAIN_S)
        task.cancel()
        self._timer = self.host.loop.call_later(CANCEL_AGAIN_S, partial(self._cancel_task, is_first=False))

    def _set_deadline(self, timeout: bytes | None, limit: float | None) -> None:
        seconds = md.parse_timeout(timeout) if timeout is not None else None
        if timeout is not None and seconds is None:
            self.finish_refused(MalformedRequest(f"malformed grpc-timeout {timeout.decode('latin-1')!r}"))
            return
        details = "Deadline exceeded."
        if limit is not None and (seconds is None or limit < seconds):
            seconds, details = limit, f"Request timed out after {limit}s."
        assert seconds is not None
        loop = self.host.loop
        self._deadline = loop.time() + seconds
        self._timer = loop.call_at(self._deadline, self.cancel, DEADLINE_EXCEEDED, details)

    def _refuse_encoding(self) -> None:
        # https://github.com/grpc/grpc/blob/master/doc/compression.md#compression-method-asymmetry-between-peers
        self._trailing = (("grpc-accept-encoding", frames.ACCEPT_ENCODING.decode()),)
        self.finish_with(UNIMPLEMENTED, f"grpc-encoding {self._encoding.decode('latin-1')!r} is not supported")

    # -- sdk.context.CallState: nothing is computed before the handler asks for it ---------------

    def _id(self) -> bytes:
        request_id = self._request_id
        if request_id is None:
            fields = self._fields
            # Envoy makes an ``x-request-id`` for every call, so that its own responses and ours name the same one.
            request_id = fields.get(b"request_id") or fields.get(b"x-request-id") or str(uuid.uuid4()).encode()
            self._request_id = request_id
        return request_id

    @property
    def request_id(self) -> str:
        """The call's request id."""
        return self._id().decode("latin-1")

    @property
    def traceparent(self) -> str | None:
        """The ``traceparent`` of the caller, or of the span, if the trace begins there; None without one."""
        value = self._fields.get(b"traceparent")
        return None if value is None else value.decode("latin-1")

    def header(self, name: bytes) -> str | None:
        """Return the last value of a header, or None."""
        value = self._fields.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def metadata(self) -> md.Metadata:
        """The metadata that the client sent."""
        if self._metadata is None:
            self._metadata = md.from_headers(self.headers)
        return self._metadata

    @property
    def trailing(self) -> md.Metadata:
        """The trailing metadata set so far."""
        return self._trailing

    @property
    def peer(self) -> str:
        """The client's address as Envoy saw it."""
        return peer_of(self.header(b"x-forwarded-for"))

    @property
    def auth_context(self) -> Mapping[str, tuple[bytes, ...]]:
        """The properties of the client that Envoy authenticated."""
        return auth_context_of(*self.identity, self.host.settings.visible_claims)

    @property
    def identity(self) -> tuple[bytes | None, bytes | None, bytes | None, bytes | None]:
        """The headers in which Envoy says who calls, the first arguments of ``auth_context_of``."""
        get = self._fields.get
        return get(b"x-forwarded-proto"), get(b"x-forwarded-client-cert"), get(_TOKEN), get(_API_KEY)

    def set_trailing(self, metadata: MetadataPairs) -> None:
        """Set the trailing metadata."""
        self._trailing = md.check(metadata)

    def send_initial_metadata(self, metadata: MetadataPairs) -> None:
        """Send the initial metadata now."""
        lines = md.encode(md.check(metadata))
        self.host.run_on_loop(partial(self._send_head, lines))

    def _send_head(self, lines: bytes) -> None:
        if self._finished:
            return  # at its deadline, or because the client is gone: the handler's next wait ends it
        if self._head_sent:
            raise RuntimeError("the initial metadata was sent already: with the first message, or by an earlier call")
        self._head_sent = True
        self.transport.write(self._begin_stream()[:-2] + lines + b"\r\n")

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the response's messages from the first one on, if the client accepts it."""
        self.host.run_on_loop(partial(self._set_compressor, compression))

    def _set_compressor(self, compression: grpc.Compression) -> None:
        if self._head_sent:
            raise RuntimeError(
                "set_compression comes too late: the initial metadata, which names the encoding, was sent already, "
                "with the first message or by send_initial_metadata"
            )
        self.compressor = compressor_for(compression, self._fields.get(b"grpc-accept-encoding"))
        if self.compressor is not None:
            self.compressor.skip_next = getattr(self, "_skips_first", False)

    def disable_next_message_compression(self) -> None:
        """Send the next message uncompressed, even if the compression is set only later."""
        self._skips_first = True
        if self.compressor is not None:
            self.compressor.skip_next = True

    def time_remaining(self) -> float | None:
        """Return the seconds left until the deadline, or None."""
        return None if self._deadline is None else max(0.0, self._deadline - self.host.loop.time())

    def is_done(self) -> bool:
        """Return True once the response is out, or nobody waits for it."""
        return self._finished

    def is_cancelled(self) -> bool:
        """Return True once the client is gone or the deadline has passed."""
        return self._cancel_reason is not None

    def on_done(self, callback: Callable[[], object]) -> bool:
        """Call back when the call is over, on the loop or in a thread as it is now; return False if it is over."""
        host = self.host
        if not host.is_loop_thread():
            # It may block, as the handler may; all threads of handlers may be waiting for it.
            callback = partial(host.loop.run_in_executor, None, callback)
        return host.run_on_loop(partial(self._add_done_callback, callback))

    def _add_done_callback(self, callback: Callable[[], object]) -> bool:
        if self._finished:
            return False
        if self._done_callbacks is None:
            self._done_callbacks = [callback]
        else:
            self._done_callbacks.append(callback)
        return True

    def cancel_by_handler(self) -> None:
        """End the call and its handler with CANCELLED."""
        self.host.run_on_loop(partial(self.cancel, CANCELLED, "the handler cancelled the call"))

    async def read_message(self) -> Any:
        """Return the next request message, or ``grpc.aio.EOF``."""
        route = self.route
        assert route is not None
        if self.messages is None:
            return EOF  # the handler has the one message as its argument
        message = await self.next_message()
        return EOF if message is None else route.decode_request(message)

    async def write_message(self, message: Any) -> None:
        """Send one response message, and wait until there is room for more.

        Raises:
            RuntimeError: The method's response is one message.
            asyncio.InvalidStateError: The call is over.
        """
        route = self.route
        assert route is not None
        if not route.server_streaming:
            raise RuntimeError(f"write() is for streams; {route.label} answers with one message: return it")
        if self._finished:
            raise asyncio.InvalidStateError("write() after the end of the call")
        data = route.encode_response(message)
        if self.compressor is None:
            self.send(data)
        else:
            flag, data = await self.compressor.compress_async(data)
            self.send(data, flag)
        if not self.writable:
            await self.wait_writable()


if TYPE_CHECKING:
    _: Callable[[Call], CallState] = lambda call: call  # noqa: E731  # a Call is what a context needs

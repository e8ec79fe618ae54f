"""One call's life inside a replica: admission, handler, answer, end.

On every request's way, and written for speed: no object is made, and nothing is parsed, that the call may not need.
A call is driven by its connection (``feed``, ``end_of_request``, ``connection_lost``) and writes to a transport; it
holds no socket, so that tests drive it with a plain object.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sdk._wire import frames
from sdk._wire import metadata as md
from sdk._wire.flow import BURST, BURST_MESSAGE, FlowControl
from sdk._wire.frames import LARGE, FrameError, FrameReader, only_message, pack_prefix
from sdk._wire.status_trailers import answer_of
from sdk.context import CallState, ServicerContext, enter_call
from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk._wire.crash_trailers import Ending
    from sdk._wire.route import Route
    from sdk._wire.server import WireServer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n"

CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 1, 4, 8, 12, 13, 14

UNKNOWN_PATIENCE_S = 0.05
# Seconds that a handler has to end after a cancellation before it is cancelled again: time for its own cleanup.
CANCEL_AGAIN_S = 10.0
# Most bytes that a message of an answer gets around it: a chunk's length, a message's prefix, two line ends.
_FRAMING = 32


class Transport(Protocol):
    """What a call needs of an ``asyncio.Transport``."""

    def write(self, data: bytes, /) -> None: ...
    def writelines(self, pieces: Iterable[bytes], /) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...


class Call(FlowControl):
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
        "_encoding",
        "_on_finished",
        "_task",
        "_timer",
        "aborted",
        "code",
        "context",
        "details",
        "path",
        "running",
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
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._cancel_reason: tuple[int, str] | None = None
        self._request_id: bytes | None = None
        self._metadata: md.Metadata | None = None
        self._trailing: md.Metadata = ()
        self._done_callbacks = None
        self._encoding = b"identity"
        self.messages: deque[frames.Message] | None = None
        self.running = 0  # the handler's task and its threads: the call counts as ongoing until all have ended
        self.code: int | None = None
        self.details = ""
        self.aborted: RpcError | None = None
        self.compressor = None
        self.context: ServicerContext | None = None
        self.ending: Ending | None = None

    # -- driven by the connection -------------------------------------------------------------

    @property
    def is_grpc(self) -> bool:
        """Whether the request says that it is a gRPC call."""
        return md.is_grpc(self._fields.get(b"content-type", b""))

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
            if not route.client_streaming:
                self.route = route.inflating
        timeout = fields.get(b"grpc-timeout")
        limit = self.server.settings.request_timeout_s
        if timeout is not None or limit is not None:
            self._set_deadline(timeout, limit)
        if route.client_streaming and not self._finished:
            if not frames.is_known_encoding(self._encoding):
                self._refuse_encoding()
                return
            self._reader = FrameReader(self.server.settings.max_receive_message_length, self._encoding)
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
            self._body = frames.extend_body(self._body, data, self.server.settings.max_receive_message_length)
        except FrameError as error:
            self._body = b""
            if frames.is_known_encoding(self._encoding):
                self.finish_with(error.code, str(error))
            else:
                self._refuse_encoding()

    def end_of_request(self) -> None:
        """The request's body is complete."""
        self._complete = True
        if self._finished:
            return
        if self.messages is not None:
            assert self._reader is not None
            self._reader.end()
            self._wake_reader()
        elif self.route is None:
            self._answer_unknown()
        elif not frames.is_known_encoding(self._encoding):
            self._refuse_encoding()
        else:
            self._admit()

    def connection_lost(self) -> None:
        """The client is gone (Envoy closes the connection when the client cancels)."""
        self.cancel(CANCELLED, "the client cancelled the call", is_heard=False)

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
            server.queue[self] = None
        else:
            self.finish_with(
                RESOURCE_EXHAUSTED,
                f"Request dropped due to backpressure (num_queued_requests={server.count_queued()}, "
                f"max_queued_requests={settings.max_queued_requests}).",
            )

    def start(self) -> None:
        """Run the handler; the caller has counted the call as ongoing."""
        self.running = 1
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
            self._task = None  # it holds its context, and that the call: without the cycle nothing waits for the GC
            if self._cancel_reason is not None and self._timer is not None:
                self._timer.cancel()  # that of _cancel_task
            # Not when the answer is out: a handler that is cancelled keeps its place until it has ended.
            self.running -= 1
            if not self.running:
                self.server.release()

    async def inflate(self) -> None:
        """Decompress the one request message in a thread when it is long; :meth:`take_message` then has less to do.

        Raises:
            FrameError: The body is not one message, or it is refused.
        """
        body, limit = self._body, self.server.settings.max_receive_message_length
        if len(body) >= frames.INFLATE_BYTES and body[0]:
            self._body = await asyncio.to_thread(frames.inflate_body, body, limit, self._encoding)

    def take_message(self) -> bytes | bytearray:
        """Return the one request message of a method that takes one; the body is complete.

        Raises:
            FrameError: The body is not one message, or it is refused.
        """
        body, self._body = self._body, b""
        return only_message(body, self.server.settings.max_receive_message_length, self._encoding)

    # -- the answer ---------------------------------------------------------------------------

    def send_only(self, data: bytes, flag: int = 0) -> None:
        """Send the one message of a unary answer together with the end of the call: one write."""
        if self._finished:
            return
        length = len(data)
        if self._head_sent or self.code or self.details or self._trailing or flag or length >= LARGE:
            self.send(data, flag, is_last=True)
            self.transport.write(self._trailers(self.code or 0, self.details))
        else:
            self._head_sent = True
            self.transport.write(
                b"%s%x\r\n%s%s\r\n0\r\ngrpc-status: 0\r\nrequest_id: %s\r\n\r\n"
                % (self.server.head, length + 5, pack_prefix(0, length), data, self._id())
            )
        self._finish()

    def send(self, data: bytes, flag: int = 0, *, is_last: bool = False) -> None:
        """Send one message; the flag 1 says that it is compressed, the last one has the end of the call behind it."""
        if self._finished:
            self.writable = False  # the handler is to notice its end at the next wait
            return
        length = len(data)
        if self._head_sent:
            head = b""
            if self.ending is not None:
                self.ending.write(length + _FRAMING)
        else:
            head = self.head() if is_last else self.begin_answer()
            self._head_sent = True
        self._burst += length + BURST_MESSAGE
        if self._burst > BURST:
            self.writable = False
        if length < LARGE:
            self.transport.write(b"%s%x\r\n%s%s\r\n" % (head, length + 5, pack_prefix(flag, length), data))
        else:  # a long message is not copied
            self.transport.writelines((b"%s%x\r\n%s" % (head, length + 5, pack_prefix(flag, length)), data, b"\r\n"))

    def finish_with(self, code: int, details: str) -> None:
        """End the call with a status, unless it has ended."""
        if self._finished:
            return
        trailers = self._trailers(code, details)
        self.transport.write(trailers if self._head_sent else self.without_messages(code, trailers))
        self._head_sent = True
        self._finish()

    def _finish_raised(self, error: BaseException) -> None:
        try:
            self._tell(error)
        except Exception as failure:  # its text can't be had, for example: the client gets an answer all the same
            self.server.log_failure(self, failure)
            style = self.server.settings.error_details
            details = f"{type(error).__name__}; it could not be told: {type(failure).__name__}"
            self.finish_with(INTERNAL, md.INTERNAL_ERROR if style == "none" else details)

    def _tell(self, error: BaseException) -> None:
        answered = self.aborted or self.server.translate(error)
        if isinstance(answered, RpcError):
            try:
                details, self._trailing = answer_of(answered, self._trailing)
            except (TypeError, ValueError) as wrong:
                self.finish_with(INTERNAL, f"the handler raised {answered!r} with metadata that can't be sent: {wrong}")
            else:
                self.finish_with(answered.code.value[0], details)
            return
        if not self._finished:
            self.server.log_failure(self, error)
        style = self.server.settings.error_details
        self.finish_with(INTERNAL, md.describe_exception(error if style == "traceback" else answered, style))

    def _trailers(self, code: int, details: str) -> bytes:
        extra = md.encode(self._trailing) if self._trailing else b""
        message = b"grpc-message: %s\r\n" % md.fit_message(details, md.message_room(len(extra))) if details else b""
        trailers = b"0\r\ngrpc-status: %d\r\n%s%srequest_id: %s\r\n\r\n" % (code, message, extra, self._id())
        if self.ending is not None:
            self.ending.finish(len(trailers))
            self.ending = None
        return trailers

    def _finish(self) -> None:
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        if self.paused:
            self.paused = False
            self.transport.resume_reading()  # what is left of the request is read and dropped
        self._wake_reader()
        self.set_writable(True)
        if self._done_callbacks:
            for callback in self._done_callbacks:
                self.server.loop.call_soon(callback)
        self._on_finished(self)

    # -- cancellation and deadlines -----------------------------------------------------------

    def cancel(self, code: int, details: str, *, is_heard: bool = True) -> None:
        """End the call from outside: the handler is cancelled, and the client gets this status if it is still there."""
        if self._finished or self._cancel_reason is not None:
            return
        self._cancel_reason = (code, details)
        self._body = b""
        self.server.queue.pop(self, None)
        self.server.leave(self)
        if is_heard:
            self.finish_with(code, details)  # the client does not wait for the handler to end
        else:
            if self.ending is not None:
                self.ending.drop()
                self.ending = None
            self._finish()
        if self._task is not None:
            # Not at once: a task that is cancelled before its first step runs nothing, and would keep its place.
            self.server.loop.call_soon(self._cancel_task)

    def _cancel_task(self, *, is_first: bool = True) -> None:
        """Cancel the handler's task, again and again until it has ended.

        A coroutine can swallow a cancellation: with a bare ``except``, or in what it awaits (``asyncio.wait_for`` up to
        Python 3.11 does when its own result arrives at the same moment). Cancelled only once, a handler that then waits
        for what never comes would keep its place until the process ends, and the calls behind it would wait as long.
        """
        task = self._task
        if task is None:
            return
        if not is_first:
            self.server.log_stubborn(self, CANCEL_AGAIN_S)
        task.cancel()
        self._timer = self.server.loop.call_later(CANCEL_AGAIN_S, partial(self._cancel_task, is_first=False))

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

    def _refuse_encoding(self) -> None:
        self._trailing = (("grpc-accept-encoding", frames.ACCEPT_ENCODING.decode()),)
        self.finish_with(UNIMPLEMENTED, f"grpc-encoding {self._encoding.decode('latin-1')!r} is not supported")


if TYPE_CHECKING:
    _: Callable[[Call], CallState] = lambda call: call  # noqa: E731  # a Call is what a context needs

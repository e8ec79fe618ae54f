"""The part of a wire server that its calls use: the loop, the limits, admission and the hooks.

On the path of every request, and written for speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from sdk._replica_protocol import HEALTH_CHECK_PATH, HEALTH_CHECK_RESPONSE
from sdk._wire.call_counts import CallCounts, ModelCounts
from sdk._wire.metadata import UNIMPLEMENTED

if TYPE_CHECKING:
    from sdk._wire.crash_trailers import CrashTrailers
    from sdk.access import Limit

logger = logging.getLogger("sdk.wire")

R = TypeVar("R")

#: Head of a response with messages, up to the empty line. An error alone has ``content-length: 0`` instead.
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n"
#: The same, whole, on a connection that stays open.
KEEP_ALIVE_HEAD = HEAD + b"\r\n"
_CLOSE_HEAD = HEAD + b"connection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class WireSettings:
    """Limits of one replica's wire server.

    Attributes:
        max_ongoing_requests: Handlers that may run at once.
        max_queued_requests: Calls that may wait until one of these handlers ends; -1 for any number.
        request_timeout_s: Seconds after which a call ends DEADLINE_EXCEEDED; None for no limit.
        max_receive_message_length: Longest request message, in bytes.
        max_metadata_bytes: Most metadata in a request, in bytes of keys and values.
        error_details: The part of a handler's exception that the client reads.
        limits: Limits of calls at once.
        visible_claims: Issuer of tokens → names of the claims that handlers see; all of an issuer that is not named.
    """

    max_ongoing_requests: int = 100
    max_queued_requests: int = -1
    request_timeout_s: float | None = None
    max_receive_message_length: int = 64 << 20
    max_metadata_bytes: int = 60 << 10
    error_details: Literal["traceback", "message", "none"] = "traceback"
    limits: tuple[Limit, ...] = ()
    visible_claims: tuple[tuple[str, tuple[str, ...]], ...] = ()


class CallMaker(Protocol):
    """The maker of calls with spans: ``sdk._wire.traced_call.ServerSpans``."""

    @property
    def tracing(self) -> Any:
        """The maker of the spans."""

    @property
    def new_call(self) -> Callable[..., Any]:
        """The constructor of a call."""


class CallLimiter(Protocol):
    """The counts of the open calls: ``sdk._wire.calls_at_once.OpenCalls``."""

    def new_call(self, make: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the maker of calls that are counted, from that of calls; None for their constructor."""


class QueuedCall(Protocol):
    """A call as the queue sees it."""

    def start(self) -> None:
        """Run the handler; the host has counted the call as ongoing."""


class LoggedCall(Protocol):
    """A call as the log sees it."""

    @property
    def path(self) -> bytes:
        """The request's path."""

    @property
    def request_id(self) -> str:
        """The id that the client has."""


def no_hook(_: Any) -> None:
    """Do nothing with a call."""


def raise_again(_: Any, error: BaseException) -> None:
    """Raise the exception that ended a handler, which ends the loop."""
    raise error


class UnknownCall(Protocol):
    """A call without a method, as its answer sees it."""

    @property
    def path(self) -> bytes:
        """The request's path."""

    def header(self, name: bytes) -> str | None:
        """Return the last value of a header, or None."""

    def finish_with(self, code: int, details: str) -> None:
        """End the call with a status, unless it has ended."""


def answer_health_check(path: bytes) -> bytes | None:
    """Return the response to a GET: that to Envoy's health check of a replica; None for every other path."""
    return HEALTH_CHECK_RESPONSE if path == HEALTH_CHECK_PATH.encode() else None


def same_error(error: BaseException) -> BaseException:
    """Return the exception unchanged."""
    return error


class Host:
    """Loop, limits, admission and hooks of one wire server, as its calls see them.

    Args:
        settings: Limits; :meth:`reconfigure` replaces them.
        on_start: Called with each call in the context of its handler, before the handler runs.
        on_cancel: Called on the loop with each call that is cancelled, or whose handler raised.
        on_exit: Called with a call whose handler raised ``SystemExit`` or ``KeyboardInterrupt``, after its answer, and
            with the exception: asyncio would end the loop, and leave the process and its other calls as they are.
        translate_error: Returns the exception to answer with for one that a handler raised.
        answer_unknown: Ends a call whose path is that of no method, at once or later; by default UNIMPLEMENTED.
        answer_get: Returns the response to a GET of a path; None for 405.
        application: The application's name, for messages.
        on_unread: Called when the connection of a call is no longer read, because its handler is slow.

    Attributes:
        on_end: Called with each call that has ended, its status code and its seconds; None if nobody asks.
        make_call: Makes a call with its span, or one that is counted; None for the constructor of its class.
        open_web_call: Returns the call of a request that is not gRPC (:mod:`sdk._web`); None if all are refused.
        unknown_methods: Counts of the calls whose path is that of no method.
        head: Head of a response with messages.
        crash_trailers: Ends the open streams if this process is killed; None if nothing does.
        ongoing: Calls whose handler runs.
        queue: Calls that wait for a handler to end, with the time at which each began to; ordered, and a call that ends
            while it waits is removed at once.
        waits: Counts of the calls that had to wait and whose handler has begun, by the time that they waited.
        models: Counts of the calls whose handler has asked for its model.
        rejected: Counts of the calls that were refused before their handler, by path, status code and reason.
        received: Calls received so far.
        closing: True once each connection closes after its response.
        executor: Threads of sync handlers, ``max_ongoing_requests`` of them.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        settings: WireSettings,
        *,
        # Any: a Call, whose module imports this one.
        on_start: Callable[[Any], None] = no_hook,
        on_cancel: Callable[[Any], None] = no_hook,
        on_exit: Callable[[Any, BaseException], None] = raise_again,
        translate_error: Callable[[BaseException], BaseException] = same_error,
        answer_unknown: Callable[[UnknownCall], None] | None = None,
        answer_get: Callable[[bytes], bytes | None] = answer_health_check,
        application: str = "",
        on_unread: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.on_start = on_start
        self.on_cancel = on_cancel
        self.on_exit = on_exit
        self.translate_error = translate_error
        self.answer_unknown = answer_unknown or self._answer_unimplemented
        self.answer_get = answer_get
        self.application = application
        self.on_unread = on_unread
        self.on_end: Callable[[Any, int, float], None] | None = None
        self.make_call: Callable[..., Any] | None = None
        self._spans: CallMaker | None = None
        self._limiter: CallLimiter | None = None
        self.open_web_call: Callable[..., Any] | None = None
        self.unknown_methods = CallCounts()
        self.head = KEEP_ALIVE_HEAD
        self.crash_trailers: CrashTrailers | None = None
        self.ongoing = 0
        self.queue: OrderedDict[QueuedCall, float] = OrderedDict()
        self.waits = CallCounts()
        self.models = ModelCounts()
        self.rejected: Counter[tuple[str, int, str]] = Counter()
        self.received = 0
        self.closing = False
        self.executor = ThreadPoolExecutor(settings.max_ongoing_requests, thread_name_prefix="grpc-handler")
        self._idle: asyncio.Event | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use this loop, which runs in this thread."""
        self.loop = loop
        self._loop_thread = threading.get_ident()

    # -- the making of calls ------------------------------------------------------------------

    @property
    def spans(self) -> CallMaker | None:
        """The maker of calls with spans; None if nobody wants spans."""
        return self._spans

    @spans.setter
    def spans(self, spans: CallMaker | None) -> None:
        self._spans = spans
        self._choose_maker()

    def limit_calls(self, limiter: CallLimiter | None) -> None:
        """Count the calls that begin from now on; None for no longer."""
        self._limiter = limiter
        self._choose_maker()

    def _choose_maker(self) -> None:
        make = None if self._spans is None else self._spans.new_call
        self.make_call = make if self._limiter is None else self._limiter.new_call(make)

    # -- admission ----------------------------------------------------------------------------

    def count_queued(self) -> int:
        """Return the number of calls that wait for a handler to end."""
        return len(self.queue)

    def release_slot(self) -> None:
        """Count one ongoing call less, and start the next one that waits."""
        self.ongoing -= 1
        if self.queue:
            self._admit_queued()
        elif self._idle is not None and not self.ongoing:
            self._idle.set()

    def reconfigure(self, settings: WireSettings) -> None:
        """Replace the limits, and start the calls that wait and now fit."""
        if settings.max_ongoing_requests != self.settings.max_ongoing_requests:
            old, self.executor = (
                self.executor,
                ThreadPoolExecutor(settings.max_ongoing_requests, thread_name_prefix="grpc-handler"),
            )
            old.shutdown(wait=False)
        self.settings = settings
        self._admit_queued()

    def _admit_queued(self) -> None:
        while self.queue and self.ongoing < self.settings.max_ongoing_requests:
            call, since = self.queue.popitem(last=False)
            self.waits.add(0, self.loop.time() - since, is_inner=False)
            self.ongoing += 1
            call.start()
        if self._idle is not None and not self.ongoing and not self.queue:
            self._idle.set()

    def count_rejected(self, path: str, status: int, reason: str) -> None:
        """Count a call that was refused before its handler; its end is counted as that of any call.

        Args:
            path: Path of its method.
            status: The gRPC status code.
            reason: ``"no_rule"``, ``"limit"`` or ``"overflow"``.
        """
        self.rejected[path, status, reason] += 1

    def take_rejected(self) -> Counter[tuple[str, int, str]]:
        """Return :attr:`rejected` since the last time."""
        taken, self.rejected = self.rejected, Counter()
        return taken

    # -- drain --------------------------------------------------------------------------------

    def start_closing(self) -> None:
        """Announce ``connection: close`` with each response from now on."""
        self.closing = True
        self.head = _CLOSE_HEAD

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait until no call runs or waits, for at most this many seconds."""
        if self.ongoing or self.queue:
            self._idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)

    # -- threads ------------------------------------------------------------------------------

    def is_loop_thread(self) -> bool:
        """Return True in the thread of the loop."""
        return threading.get_ident() == self._loop_thread

    def call_soon(self, action: Callable[[], Any]) -> None:
        """Run a function on the loop soon, from any thread; dropped if the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(action)

    def run_on_loop(self, function: Callable[[], R]) -> R:
        """Run a function on the loop, from any thread, and return its result.

        This serialises the actions of a context in a handler's thread with those on the loop that end the call.
        """
        if self.is_loop_thread():
            return function()
        future: Future[R] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return future.result()

    # -- messages -----------------------------------------------------------------------------

    def _answer_unimplemented(self, call: UnknownCall) -> None:
        service, _, method = call.path.decode("latin-1").lstrip("/").rpartition("/")
        name = call.header(b"application") or self.application
        call.finish_with(UNIMPLEMENTED, f"Application {name!r} has no method {method!r} of service {service!r}.")

    def log_failure(self, call: LoggedCall, error: BaseException) -> None:
        """Log an exception that a handler did not handle, with the request id that the client has."""
        logger.error("%s failed, request_id %s", call.path.decode("latin-1"), call.request_id, exc_info=error)

    def log_swallowed_cancellation(self, call: LoggedCall, seconds: float) -> None:
        """Log that a coroutine has not ended although it was cancelled this many seconds ago."""
        logger.warning(
            "%s still runs %g s after it was cancelled, request_id %s; it counts as one of the %d ongoing requests "
            "(max_ongoing_requests) until it ends, and is cancelled again: "
            "a handler must not catch asyncio.CancelledError without raising it",
            call.path.decode("latin-1"),
            seconds,
            call.request_id,
            self.settings.max_ongoing_requests,
        )

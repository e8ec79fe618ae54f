"""The wire server: accepts Envoy's connections, and counts, queues and drains calls.

On every request's way, and written for speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sdk._replica_protocol import SHUTTING_DOWN
from sdk._wire.call import HEAD, UNAVAILABLE
from sdk._wire.connection import Connection
from sdk._wire.idle_reaper import Phase, Sweep, most_connections, notice_dead_peers
from sdk._wire.route import build_routes

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    from sdk._wire.call import Call
    from sdk._wire.crash_trailers import Endings
    from sdk.service import MethodBinding

logger = logging.getLogger("sdk.wire")

_BACKLOG = 4096
_HEAD_OPEN = HEAD + b"\r\n"
_HEAD_CLOSE = HEAD + b"connection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class WireSettings:
    """Limits of one replica's wire server.

    Attributes:
        max_ongoing_requests: Handlers that may run at once.
        max_queued_requests: Calls that may wait for one of these places; -1 for any number.
        request_timeout_s: Seconds after which a call ends DEADLINE_EXCEEDED; None for no limit.
        max_receive_message_length: Longest request message, in bytes.
        max_metadata_bytes: Most metadata in a request, in bytes of keys and values.
        error_details: What the client reads of an exception in a handler.
    """

    max_ongoing_requests: int = 100
    max_queued_requests: int = -1
    request_timeout_s: float | None = None
    max_receive_message_length: int = 64 << 20
    max_metadata_bytes: int = 60 << 10
    error_details: Literal["traceback", "message", "none"] = "traceback"


def _nothing(_: Call) -> None:
    return None


def _untranslated(error: BaseException) -> BaseException:
    return error


class WireServer:
    """Serves the methods of one implementation.

    Args:
        bindings: The methods and their handlers.
        settings: Limits; they may be replaced while it serves.
        enter: Called in the context of each call's handler before it runs.
        leave: Called on the loop when a call is cancelled.
        translate: Gives the exception to answer with for one that a handler raised.
        application: The application's name, for messages.
        compression: How answers are compressed whose handler does not say it.
        interceptors: What stands between a call and its handler, the outermost first.

    Example:
        >>> import asyncio
        >>> async def serve() -> int:
        ...     server = WireServer([])
        ...     port = await server.listen("127.0.0.1")
        ...     await server.drain(quiet_s=0, grace_s=0)
        ...     return port
        >>> asyncio.run(serve()) > 0
        True
    """

    def __init__(
        self,
        bindings: Iterable[MethodBinding],
        settings: WireSettings | None = None,
        *,
        enter: Callable[[Call], None] = _nothing,
        leave: Callable[[Call], None] = _nothing,
        translate: Callable[[BaseException], BaseException] = _untranslated,
        application: str = "",
        compression: grpc.Compression | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self.routes = build_routes(bindings, compression, interceptors)
        self.settings = settings or WireSettings()
        self.enter = enter
        self.leave = leave
        self.translate = translate
        self.application = application
        self.head = _HEAD_OPEN
        self.endings: Endings | None = None
        self.ongoing = 0
        self.queue: OrderedDict[Call, None] = OrderedDict()  # so that a call that ends while it waits leaves at once
        self.calls = 0
        self.loop: asyncio.AbstractEventLoop
        self.executor = ThreadPoolExecutor(self.settings.max_ongoing_requests, thread_name_prefix="grpc-handler")
        self.sweep = Sweep(most_connections())
        self._connections: set[Connection] = self.sweep.connections  # type: ignore[assignment]  # all are ours
        self._listeners: list[asyncio.Server] = []
        self._idle: asyncio.Event | None = None
        self._lost: asyncio.Event | None = None
        self.closing = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve on this loop, which runs in this thread; :meth:`listen` does it by itself."""
        self.loop = loop
        self._loop_thread = threading.get_ident()

    async def listen(self, host: str, port: int = 0) -> int:
        """Listen on an address (once more, when it listens on another already), and return the port.

        Args:
            host: IP address to listen on.
            port: TCP port; 0 takes a free one.

        Raises:
            OSError: The address can't be had.
        """
        self.attach(asyncio.get_running_loop())
        listener = await self.loop.create_server(lambda: Connection(self), host, port, backlog=_BACKLOG)
        notice_dead_peers(listener)
        self._listeners.append(listener)
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

    async def listen_locally(self) -> str:
        """Listen on an abstract unix socket (unix(7)), and return its name without the NUL byte before it.

        It needs no file, so nothing is left when the process dies, and it is reached from where loopback is: from the
        same network namespace. The name can't be guessed, and so not be taken by another process before.
        """
        self.attach(asyncio.get_running_loop())
        name = f"grpc-replica-{uuid.uuid4()}"
        listener = await self.loop.create_unix_server(lambda: Connection(self), f"\0{name}", backlog=_BACKLOG)
        self._listeners.append(listener)
        return name

    def reconfigure(self, settings: WireSettings) -> None:
        """Serve with other limits from now on; calls that wait are admitted when there is room for them now."""
        if settings.max_ongoing_requests != self.settings.max_ongoing_requests:
            old, self.executor = (
                self.executor,
                ThreadPoolExecutor(settings.max_ongoing_requests, thread_name_prefix="grpc-handler"),
            )
            old.shutdown(wait=False)
        self.settings = settings
        self._admit_queued()

    def count_queued(self) -> int:
        """Return how many calls wait for a place."""
        return len(self.queue)

    def release(self) -> None:
        """One ongoing call is over: its place goes to the next one that waits."""
        self.ongoing -= 1
        if self.queue:
            self._admit_queued()
        elif self._idle is not None and not self.ongoing:
            self._idle.set()

    def _admit_queued(self) -> None:
        while self.queue and self.ongoing < self.settings.max_ongoing_requests:
            call, _ = self.queue.popitem(last=False)
            self.ongoing += 1
            call.start()
        if self._idle is not None and not self.ongoing and not self.queue:
            self._idle.set()

    def on_loop(self, action: Callable[[], Any]) -> None:
        """Run something on the server's loop, from whatever thread this is; dropped when the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(action)

    def is_loop_thread(self) -> bool:
        """Tell whether this is the thread of the server's loop."""
        return threading.get_ident() == self._loop_thread

    def describe_unknown(self, application: str | None, service: str, method: str) -> str:
        """Return the details for a path that nothing here answers."""
        name = application or self.application
        return f"Application {name!r} has no method {method!r} of service {service!r}."

    def log_failure(self, call: Call, error: BaseException) -> None:
        """Log an exception that a handler did not handle, with the id that the client has."""
        logger.error("%s failed, request_id %s", call.path.decode("latin-1"), call.request_id, exc_info=error)

    def log_stubborn(self, call: Call, seconds: float) -> None:
        """Log that a coroutine has not ended so many seconds after it was cancelled."""
        logger.warning(
            "%s still runs %g s after it was cancelled, request_id %s; it keeps one of the %d places "
            "(max_ongoing_requests) until it ends, and is cancelled again: "
            "a handler must not catch asyncio.CancelledError without raising it",
            call.path.decode("latin-1"),
            seconds,
            call.request_id,
            self.settings.max_ongoing_requests,
        )

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        self._connections.discard(connection)
        if self._lost is not None:
            self._lost.set()

    async def drain(self, *, quiet_s: float, grace_s: float, leave_s: float = 0.0, last_words_s: float = 0.0) -> None:
        """Stop serving without losing a call; then end what is left.

        Envoy must no longer send calls here when this is called; those on their way still arrive.

        Args:
            quiet_s: Seconds without a new call after which none is expected any more; at most a fourth of the grace.
            grace_s: Seconds that ongoing calls get to end by themselves; then they end UNAVAILABLE.
            leave_s: Seconds that Envoy gets to close its idle connections, which each of its threads does when it
                forgets this replica: until then one that is short of time may still send a call. At most a fourth of
                the grace, too.
            last_words_s: Seconds after the grace that peers get to read their answers and to close. A process that
                ended at once would reset the connections of those that still send, and the answers would be lost.
        """
        began, seen = self.loop.time(), -1
        while seen != self.calls and self.loop.time() <= began + grace_s / 4:
            seen = self.calls
            await asyncio.sleep(quiet_s)
        await self._until_closed(lambda connection: connection.phase is Phase.IDLE, min(leave_s, grace_s / 4))
        await asyncio.sleep(0)  # what has arrived is accepted and read
        self.closing = True
        self.head = _HEAD_CLOSE
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        if self.ongoing or self.queue:
            self._idle = asyncio.Event()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), began + grace_s - self.loop.time())
        for connection in list(self._connections):
            connection.end(UNAVAILABLE, SHUTTING_DOWN)
        await self._until_closed(lambda _: True, last_words_s)
        self.executor.shutdown(wait=False, cancel_futures=True)

    async def _until_closed(self, counts: Callable[[Connection], bool], patience_s: float) -> None:
        """Wait until no connection is open that counts."""
        deadline = self.loop.time() + patience_s
        while any(map(counts, self._connections)):
            left = deadline - self.loop.time()
            if left <= 0:
                return
            self._lost = asyncio.Event()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._lost.wait(), left)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

"""The wire server: accepts Envoy's connections, parses HTTP/1.1, and counts, queues and drains calls.

On every request's way, and written for speed. A connection carries one call at a time, as Envoy uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import httptools

from sdk.wire.call import HEAD, UNAVAILABLE, Call
from sdk.wire.routes import build_routes

if TYPE_CHECKING:
    from sdk.service import Row

logger = logging.getLogger("sdk.wire")

MAX_HEADER_BYTES = 96 << 10
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
        error_details: What the client reads of an exception in a handler.
    """

    max_ongoing_requests: int = 100
    max_queued_requests: int = -1
    request_timeout_s: float | None = None
    max_receive_message_length: int = 64 << 20
    error_details: Literal["traceback", "message", "none"] = "traceback"


def _nothing(_: Call) -> None:
    return None


def _untranslated(error: BaseException) -> BaseException:
    return error


class WireServer:
    """Serves the rows of one implementation.

    Args:
        rows: The methods and their handlers.
        settings: Limits; they may be replaced while it serves.
        enter: Called in the context of each call's handler before it runs.
        leave: Called on the loop when a call is cancelled.
        translate: Gives the exception to answer with for one that a handler raised.
        application: The application's name, for messages.

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
        rows: Iterable[Row],
        settings: WireSettings | None = None,
        *,
        enter: Callable[[Call], None] = _nothing,
        leave: Callable[[Call], None] = _nothing,
        translate: Callable[[BaseException], BaseException] = _untranslated,
        application: str = "",
    ) -> None:
        self.routes = build_routes(rows)
        self.settings = settings or WireSettings()
        self.enter = enter
        self.leave = leave
        self.translate = translate
        self.application = application
        self.head = _HEAD_OPEN
        self.ongoing = 0
        self.queue: deque[Call] = deque()
        self.calls = 0
        self.loop: asyncio.AbstractEventLoop
        self.executor = ThreadPoolExecutor(self.settings.max_ongoing_requests, thread_name_prefix="grpc-handler")
        self._connections: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self._idle: asyncio.Event | None = None
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
        listener = await self.loop.create_server(lambda: Connection(self), host, port, backlog=4096)
        self._listeners.append(listener)
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

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
        """Return how many calls wait for a place; those that ended while they waited do not count."""
        queue = self.queue
        while queue and queue[0].is_done():
            queue.popleft()
        return sum(not call.is_done() for call in queue) if queue else 0

    def release(self) -> None:
        """One ongoing call is over: its place goes to the next one that waits."""
        self.ongoing -= 1
        if self.queue:
            self._admit_queued()
        elif self._idle is not None and not self.ongoing:
            self._idle.set()

    def _admit_queued(self) -> None:
        while self.queue and self.ongoing < self.settings.max_ongoing_requests:
            call = self.queue.popleft()
            if not call.is_done():
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

    async def drain(self, *, quiet_s: float, grace_s: float) -> None:
        """Stop serving without losing a call; then end what is left.

        Envoy must no longer send calls here when this is called; those on their way still arrive.

        Args:
            quiet_s: Seconds without a new call after which none is expected any more.
            grace_s: Seconds that ongoing calls get to end by themselves; then they end UNAVAILABLE.
        """
        seen = -1
        while seen != self.calls:
            seen = self.calls
            await asyncio.sleep(quiet_s)
        self.closing = True
        self.head = _HEAD_CLOSE
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        if self.ongoing or self.queue:
            self._idle = asyncio.Event()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)
        for connection in list(self._connections):
            connection.end(UNAVAILABLE, "the replica is shutting down")
        self.executor.shutdown(wait=False, cancel_futures=True)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)


class Connection(asyncio.Protocol):
    """One connection from Envoy."""

    __slots__ = ("_call", "_header_bytes", "_headers", "_in_headers", "_parser", "_path", "_server", "_transport")

    def __init__(self, server: WireServer) -> None:
        self._server = server
        self._call: Call | None = None
        self._in_headers = False
        self._header_bytes = 0
        self._parser = httptools.HttpRequestParser(self)

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._server._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
            if self._in_headers:
                self._header_bytes += len(data)
                if self._header_bytes > MAX_HEADER_BYTES:
                    raise httptools.HttpParserError("the headers are too long")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(b"400 Bad Request", str(error))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._server._connections.discard(self)
        if self._call is not None:
            self._call.connection_lost()

    def pause_writing(self) -> None:
        if self._call is not None:
            self._call.set_writable(False)

    def resume_writing(self) -> None:
        if self._call is not None:
            self._call.set_writable(True)

    # -- httptools ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._call is not None:
            raise httptools.HttpParserError("a request before the answer to the last one")
        self._path = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._in_headers = True

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Names are in lower case: Envoy writes them so.
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        server = self._server
        server.calls += 1
        self._in_headers = False
        call = Call(
            server, self._transport, server.routes.get(self._path), self._path, self._headers, self._on_finished
        )
        if self._parser.get_method() != b"POST":
            self._refuse(b"405 Method Not Allowed", "gRPC calls are POST requests")
        elif not call.is_grpc:
            self._refuse(b"415 Unsupported Media Type", "the content-type of a gRPC call is application/grpc")
        else:
            self._call = call
            call.headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._call is not None:
            self._call.feed(body)

    def on_message_complete(self) -> None:
        call = self._call
        if call is None:
            return
        call.end_of_request()
        if call.is_done():
            self._ready_for_next()

    # -- ends ---------------------------------------------------------------------------------

    def _on_finished(self, call: Call) -> None:
        if call.request_complete:
            self._ready_for_next()

    def _ready_for_next(self) -> None:
        self._call = None
        if self._server.closing:
            self._transport.close()

    def close_when_idle(self) -> None:
        """Close now, or when the answer to the running call is out."""
        if self._call is None:
            self._transport.close()

    def end(self, code: int, details: str) -> None:
        """End the running call with a status, and close."""
        if self._call is not None:
            self._call.cancel(code, details)
        self._transport.close()

    def _refuse(self, status: bytes, reason: str) -> None:
        """Answer what is no gRPC call with an HTTP error, and close: nothing behind it can be trusted."""
        call, self._call = self._call, None
        if call is not None:
            call.connection_lost()
        elif not self._transport.is_closing():
            body = reason.encode()
            self._transport.write(
                b"HTTP/1.1 %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, len(body), body)
            )
        self._transport.close()

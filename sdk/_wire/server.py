"""The wire server: listens, hands connections to their protocol, and drains."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sdk._guard.between_nodes import UNGUARDED, BetweenNodes
from sdk._replica_protocol import SHUTTING_DOWN
from sdk._wire.call_counts import LATENCY_BOUNDS_MS, CallCounts
from sdk._wire.calls_at_once import OpenCalls
from sdk._wire.connection import Connection
from sdk._wire.dispatch import build_routes
from sdk._wire.host import Host, WireSettings, answer_health_check, no_hook, raise_again, same_error
from sdk._wire.idle_reaper import IdleReaper, Phase, enable_keepalive, max_connections
from sdk._wire.late_accepts import LateAccepts
from sdk._wire.metadata import UNAVAILABLE
from sdk._wire.peer_check import DistantConnection, LocalConnection

if TYPE_CHECKING:
    from ssl import SSLContext

    import grpc
    import grpc.aio

    from sdk._wire.call import Call
    from sdk._wire.call_counts import CountedCalls
    from sdk._wire.host import UnknownCall
    from sdk.service import MethodBinding

_BACKLOG = 4096


class WireServer:
    """Serves the methods of one implementation.

    Args:
        bindings: The methods and their handlers.
        settings: Limits; :meth:`reconfigure` replaces them.
        on_start: Called with each call in the context of its handler, before the handler runs.
        on_cancel: Called on the loop with each call that is cancelled, or whose handler raised.
        on_exit: Called with a call whose handler raised ``SystemExit`` or ``KeyboardInterrupt``, and the exception.
        translate_error: Returns the exception to answer with for one that a handler raised.
        answer_unknown: Ends a call whose path is that of no method, at once or later; by default UNIMPLEMENTED.
        answer_get: Returns the response to a GET of a path; None for 405.
        application: The application's name, for messages.
        compression: Compression of responses whose handler does not choose one.
        interceptors: Run between a call and its handler, the outermost first.
        guard: How connections over TCP are checked.
        latency_bounds_ms: Upper bounds of the buckets in which calls are counted, in milliseconds.

    Attributes:
        host: The part of the server that its calls use.
        routes: The methods by path.
        reaper: The open connections.

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
        on_start: Callable[[Call], None] = no_hook,
        on_cancel: Callable[[Call], None] = no_hook,
        on_exit: Callable[[Call, BaseException], None] = raise_again,
        translate_error: Callable[[BaseException], BaseException] = same_error,
        answer_unknown: Callable[[UnknownCall], None] | None = None,
        answer_get: Callable[[bytes], bytes | None] = answer_health_check,
        application: str = "",
        compression: grpc.Compression | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        guard: BetweenNodes = UNGUARDED,
        latency_bounds_ms: Sequence[float] = LATENCY_BOUNDS_MS,
    ) -> None:
        self._guard = guard
        self.routes = build_routes(bindings, compression, interceptors, latency_bounds_ms)
        self.host = Host(
            settings or WireSettings(),
            on_start=on_start,
            on_cancel=on_cancel,
            on_exit=on_exit,
            translate_error=translate_error,
            answer_unknown=answer_unknown,
            answer_get=answer_get,
            application=application,
            on_unread=lambda: self.reaper.look_soon(self.host.loop),
        )
        self._open_calls: OpenCalls | None = None
        self._limit_calls()
        self.host.unknown_methods = CallCounts(latency_bounds_ms)
        self.reaper = IdleReaper(max_connections())
        self._connections: set[Connection] = self.reaper.connections  # type: ignore[assignment]  # all are ours
        self._listeners: list[asyncio.Server] = []
        self._late_accepts: LateAccepts | None = None

    def reconfigure(self, settings: WireSettings) -> None:
        """Replace the limits. Calls that wait and now fit start."""
        self.host.reconfigure(settings)
        self._limit_calls()

    def _limit_calls(self) -> None:
        limits = self.host.settings.limits
        self._open_calls = OpenCalls(limits, self._open_calls) if limits else None
        self.host.limit_calls(self._open_calls)

    def new_connection(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self.host, self.routes, self.reaper)

    async def listen(self, host: str, port: int = 0) -> int:
        """Listen on one more address, and return the port.

        Args:
            host: IP address to listen on.
            port: TCP port; 0 takes a free one.

        Raises:
            OSError: The address is not available.
        """
        loop = asyncio.get_running_loop()
        self.host.attach(loop)
        context = self._guard.server_context()
        listener = await loop.create_server(self._new_distant_connection, host, port, backlog=_BACKLOG, ssl=context)
        enable_keepalive(listener)
        self._add(listener, self._new_distant_connection, context)
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

    async def listen_locally(self) -> str:
        """Listen on an abstract unix socket (unix(7)), and return its name without the NUL byte before it.

        It needs no file, so nothing is left when the process dies, and its scope is that of loopback: the network
        namespace. Its name can't be guessed, so no other process can take it before.
        """
        name = f"grpc-replica-{uuid.uuid4()}"
        await self.listen_at(f"\0{name}")
        return name

    async def listen_at(self, path: str) -> None:
        """Listen on a unix socket.

        Args:
            path: Its path, in a folder that only this user can enter. A socket that another process has left there is
                replaced.

        Raises:
            OSError: The path is not available.
        """
        loop = asyncio.get_running_loop()
        self.host.attach(loop)
        listener = await loop.create_unix_server(self._new_local_connection, path, backlog=_BACKLOG)
        self._add(listener, self._new_local_connection)

    def _new_local_connection(self) -> Connection:
        return LocalConnection(self.host, self.routes, self.reaper)

    def _new_distant_connection(self) -> Connection:
        return DistantConnection(self.host, self.routes, self.reaper, self._guard)

    def _add(
        self, listener: asyncio.Server, new_connection: Callable[[], Connection], context: SSLContext | None = None
    ) -> None:
        self._listeners.append(listener)
        if self._late_accepts is None:
            reaper = self.reaper
            self._late_accepts = LateAccepts(self.host.loop, lambda: reaper.limit - len(reaper.connections))
        self._late_accepts.watch(listener, new_connection, context)

    async def drain(self, *, quiet_s: float, grace_s: float, idle_close_s: float = 0.0, linger_s: float = 0.0) -> None:
        """Stop serving without losing a call; then end the calls that are left.

        Envoy must no longer route calls here when this is called; those on their way still arrive.

        Args:
            quiet_s: Seconds without a new call after which no further one is expected; at most a fourth of the grace.
            grace_s: Seconds that ongoing calls get to finish; then they end UNAVAILABLE.
            idle_close_s: Seconds that Envoy gets to close its idle connections, which each of its threads does when it
                removes this replica: until then a thread that is short of CPU may still send a call. At most a fourth
                of the grace, too.
            linger_s: Seconds after the grace that peers get to read their responses and to close. A process that ended
                at once would reset the connections of those that still send, and their responses would be lost.
        """
        host = self.host
        loop = host.loop
        began, seen = loop.time(), -1
        while seen != host.received and loop.time() <= began + grace_s / 4:
            seen = host.received
            await asyncio.sleep(quiet_s)
        await self.reaper.wait_closed(lambda connection: connection.phase is Phase.IDLE, min(idle_close_s, grace_s / 4))
        late_accepts, self._late_accepts = self._late_accepts, None
        if late_accepts is not None:
            await late_accepts.stop()
        await asyncio.sleep(0)  # accept and read what has arrived
        host.start_closing()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        await host.wait_idle(began + grace_s - loop.time())
        for connection in list(self._connections):
            connection.end(UNAVAILABLE, SHUTTING_DOWN)
        await self.reaper.wait_closed(lambda _: True, linger_s)
        host.executor.shutdown(wait=False, cancel_futures=True)

    def count_calls(self) -> int:
        """Return the number of calls that run or wait."""
        return self.host.ongoing + self.host.count_queued()

    def take_counts(self) -> Iterator[tuple[str, CountedCalls]]:
        """Yield the calls that have ended since the last time, with the paths of their methods.

        The path of calls to unknown methods is empty: a client can name any.
        """
        for path, route in self.routes.items():
            for counted in route.counts.take():
                yield path.decode(), counted
        for counted in self.host.unknown_methods.take():
            yield "", counted

    def take_messages(self) -> Iterator[tuple[str, str, int, int]]:
        """Yield path, direction (``"received"``, ``"sent"``), messages and bytes since the last time."""
        for path, route in self.routes.items():
            for direction, counted in route.counts.take_messages().items():
                yield path.decode(), direction, *counted

    def count_current(self) -> Counter[tuple[str, str]]:
        """Return the number of calls by path and state: ``"ongoing"`` while their handler runs, or ``"queued"``."""
        current: Counter[tuple[str, str]] = Counter()
        for connection in self._connections:
            call = connection.call
            if call is not None and call.route is not None and (call.running or call in self.host.queue):
                current[call.route.method.path, "ongoing" if call.running else "queued"] += 1
        return current

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

"""Limits of open connections: how many, and how long each may stay without progress.

No timer is armed for a call. Once a second all connections are compared with their state of the second before, so that
a call without trouble pays nothing. While all are between calls, once in five seconds is enough: most replicas of a
node may be idle, and each wake-up costs as much as a short call.

Envoy's own connections are never cut short: it keeps idle ones for an hour. Calls have no idle timeout; only deadlines
end them.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import resource
import select
import socket
from collections.abc import Callable
from typing import Any, Protocol

logger = logging.getLogger("sdk.wire")

REAP_INTERVAL_S = 1.0
# The same while all connections are between calls.
CALM_INTERVAL_S = 5.0
# Envoy closes connections that are idle for an hour. If we were first, a call could be on its way.
# https://www.envoyproxy.io/docs/envoy/latest/faq/configuration/timeouts
IDLE_TIMEOUT_S = 65 * 60.0
# Envoy needs one write, and a close, for the rest of a head or the end of a request that has its response.
STALL_TIMEOUT_S = 10.0
# Share of the possible connections from which idle ones make room for others.
CROWDED_SHARE = 0.75
# File descriptors that connections leave to everything else in the process.
RESERVED_FILES = 256

# Seconds of silence before the kernel probes a peer, seconds between probes, and probes that a peer may miss (tcp(7)).
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))

_DISCONNECTED = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)  # the last one is Linux's


class Phase(enum.Enum):
    """State of a connection, as far as timeouts are concerned."""

    IDLE = "between calls, or before the first"
    NOT_KEPT_ALIVE = "after a call in HTTP/1.0, whose peer waits for the end of the connection"
    HEAD = "the head of a request is incomplete"
    CALL = "a call that has not ended"
    RESPONSE_SENT = "the response is complete, the request is not"
    CLOSING = "closed, but not everything is sent"


class ReapableConnection(Protocol):
    """A connection as the reaper sees it."""

    @property
    def phase(self) -> Phase:
        """The state of the connection."""

    @property
    def request_number(self) -> int:
        """A number that changes with every request."""

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not read yet."""

    @property
    def unread_socket(self) -> int | None:
        """File descriptor of the socket while it is not read: a disconnect of its peer goes unnoticed."""

    def expire(self, phase: Phase) -> None:
        """End the connection in a way that fits its phase."""

    def abort(self) -> None:
        """End the connection now."""


def max_connections() -> int:
    """Return the number of connections that the process has file descriptors for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if files == resource.RLIM_INFINITY else max(files - RESERVED_FILES, files // 2)


def enable_keepalive(listener: asyncio.Server) -> None:
    """Have the kernel close accepted connections whose peer's node is gone: one that lost power closes nothing."""
    for listening in listener.sockets:  # accepted sockets inherit its options
        if listening.family == socket.AF_UNIX:
            continue
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # macOS calls the first one TCP_KEEPALIVE
                listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class IdleReaper:
    """Open connections; ends those that make no progress.

    Args:
        limit: Most connections that may be open.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.connections: set[ReapableConnection] = set()
        self._seen: dict[ReapableConnection, tuple[tuple[Phase, int, int], float]] = {}
        self._rejected = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_calm = False
        self._closed: asyncio.Event | None = None

    def admit(self, connection: ReapableConnection, loop: asyncio.AbstractEventLoop) -> bool:
        """Watch a new connection; return False if too many are open."""
        if len(self.connections) >= self.limit:
            self._rejected += 1
            return False
        self.connections.add(connection)
        self.look_soon(loop)
        return True

    def look_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compare the connections within a second: one is new, or is no longer read."""
        if self._timer is not None:
            if not self._is_calm:
                return
            self._timer.cancel()
        self._is_calm = False
        self._timer = loop.call_later(REAP_INTERVAL_S, self._run, loop)

    def discard(self, connection: ReapableConnection) -> None:
        """Stop watching a connection: it is closed."""
        self.connections.discard(connection)
        if self._closed is not None:
            self._closed.set()

    async def wait_closed(self, matches: Callable[[Any], bool], timeout_s: float) -> None:
        """Wait until no open connection matches.

        Args:
            matches: Returns True for a connection to wait for.
            timeout_s: Seconds after which to return in any case.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while any(map(matches, self.connections)):
            left = deadline - loop.time()
            if left <= 0:
                return
            self._closed = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), left)

    @property
    def _is_crowded(self) -> bool:
        return len(self.connections) >= self.limit * CROWDED_SHARE

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self.connections:
            self._is_calm = not self._is_crowded and all(each.phase is Phase.IDLE for each in self.connections)
            self._timer = loop.call_later(CALM_INTERVAL_S if self._is_calm else REAP_INTERVAL_S, self._run, loop)
        self.reap(loop.time())

    def reap(self, now: float) -> None:
        """Compare every connection with its state of the last time, and end those without progress.

        Args:
            now: The loop's time, in seconds.
        """
        if self._rejected:
            logger.warning(
                "refused %d connections: %d are open, as many as there are file descriptors for (ulimit -n)",
                self._rejected,
                len(self.connections),
            )
            self._rejected = 0
        idle_s = STALL_TIMEOUT_S if self._is_crowded else IDLE_TIMEOUT_S
        seen, self._seen = self._seen, {}
        unread = {}
        for connection in list(self.connections):
            phase = connection.phase
            if phase is Phase.CALL:
                descriptor = connection.unread_socket
                if descriptor is not None:
                    unread[descriptor] = connection
                continue
            state = phase, connection.request_number, connection.unsent
            before = seen.get(connection)
            since = before[1] if before is not None and before[0] == state else now
            self._seen[connection] = state, since
            may_idle = phase is Phase.IDLE or (phase is Phase.RESPONSE_SENT and state[2])
            if now - since >= (idle_s if may_idle else STALL_TIMEOUT_S):
                connection.expire(phase)
        if unread:
            # Over TCP a disconnect behind unread bytes is not seen; the kernel closes such a connection after minutes.
            poll = select.poll()
            for descriptor in unread:
                poll.register(descriptor, _DISCONNECTED)
            for descriptor, _ in poll.poll(0):
                unread[descriptor].abort()

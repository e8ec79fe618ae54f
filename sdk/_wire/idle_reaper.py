"""Connections that cost something and bring nothing: how many there may be, and how long each may stay.

No timer is armed for a call. Once a second all connections are compared with what was seen of them before, so that
a call that goes well pays nothing for it.

What Envoy does is never cut short: it keeps idle connections for an hour, and a call may be silent as long as it
likes (only deadlines end it).
"""

from __future__ import annotations

import enum
import logging
import resource
import select
import socket
from asyncio import AbstractEventLoop, Server
from typing import Protocol

logger = logging.getLogger("sdk.wire")

SWEEP_S = 1.0
# Envoy closes what is idle for an hour; were we first, a call could be on its way.
IDLE_S = 65 * 60.0
# For what takes Envoy one write, and to close: a head's other half, the end of a request that has its answer.
PATIENCE_S = 10.0
# The share of the possible connections from which on idle ones make room for others.
CROWDED = 0.75
# File descriptors that connections leave to everything else in the process.
RESERVED_FILES = 256

# Seconds of silence after which a peer is asked for a sign of life, between such questions, and how many it misses.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))

_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)  # the last one is Linux's


class Phase(enum.Enum):
    """What a connection is doing, as far as patience is concerned."""

    IDLE = "between calls, or before the first"
    LAST = "after a call in HTTP/1.0, whose peer waits for the end of the connection"
    HEAD = "amid the head of a request"
    CALL = "a call that has not ended"
    REST = "the answer is given, the request goes on"
    CLOSING = "closed, but not everything is sent"


class Watched(Protocol):
    """A connection as the sweep sees it."""

    @property
    def phase(self) -> Phase:
        """What it is doing."""

    @property
    def calls(self) -> int:
        """A number that changes with every call."""

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not taken yet."""

    @property
    def unread_socket(self) -> int | None:
        """File descriptor of the socket when it is not read at present: the end of its peer goes unnoticed."""

    def give_up(self, phase: Phase) -> None:
        """End the connection, in the way that fits its phase."""

    def abort(self) -> None:
        """End the connection now."""


def most_connections() -> int:
    """Return how many connections the process has file descriptors for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if files == resource.RLIM_INFINITY else max(files - RESERVED_FILES, files // 2)


def notice_dead_peers(listener: Server) -> None:
    """Let the kernel close what it accepts here when the peer's node is gone: one that lost power closes nothing."""
    for listening in listener.sockets:  # what is accepted inherits its options
        if listening.family == socket.AF_UNIX:
            continue
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # macOS calls the first one TCP_KEEPALIVE
                listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Sweep:
    """Ends connections that cost something and bring nothing.

    Args:
        limit: How many connections there may be.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.connections: set[Watched] = set()
        self._seen: dict[Watched, tuple[tuple[Phase, int, int], float]] = {}
        self._refused = 0
        self._is_running = False

    def admit(self, connection: Watched, loop: AbstractEventLoop) -> bool:
        """Watch a new connection, unless there are too many."""
        if len(self.connections) >= self.limit:
            self._refused += 1
            return False
        self.connections.add(connection)
        if not self._is_running:
            self._is_running = True
            loop.call_later(SWEEP_S, self._run, loop)
        return True

    def _run(self, loop: AbstractEventLoop) -> None:
        self._is_running = bool(self.connections)
        if self._is_running:
            loop.call_later(SWEEP_S, self._run, loop)
        self.sweep(loop.time())

    def sweep(self, now: float) -> None:
        """Compare every connection with what was seen of it before, and end those without hope.

        Args:
            now: The loop's time, in seconds.
        """
        if self._refused:
            logger.warning(
                "refused %d connections: %d are open, as many as there are file descriptors for (ulimit -n)",
                self._refused,
                len(self.connections),
            )
            self._refused = 0
        idle_s = IDLE_S if len(self.connections) < self.limit * CROWDED else PATIENCE_S
        seen, self._seen = self._seen, {}
        unread = {}
        for connection in list(self.connections):
            phase = connection.phase
            if phase is Phase.CALL:
                descriptor = connection.unread_socket
                if descriptor is not None:
                    unread[descriptor] = connection
                continue
            state = phase, connection.calls, connection.unsent
            before = seen.get(connection)
            since = before[1] if before is not None and before[0] == state else now
            self._seen[connection] = state, since
            if now - since >= (idle_s if phase is Phase.IDLE or (phase is Phase.REST and state[2]) else PATIENCE_S):
                connection.give_up(phase)
        if unread:
            # Over TCP an end behind unread bytes is not seen; the kernel closes such a connection after minutes.
            poll = select.poll()
            for descriptor in unread:
                poll.register(descriptor, _GONE)
            for descriptor, _ in poll.poll(0):
                unread[descriptor].abort()

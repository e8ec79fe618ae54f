"""The feed that sends programs the replicas of the deployments that they call.

In the form of ``sdk/_channel/feed.py``: over a unix socket to the programs on this node, and by long poll to those on
nodes without a proxy. Each program names the deployments that it calls, and gets their state at once and after every
change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from sdk._channel.feed import Address, DeploymentKey, State, decode_interest, encode_state, socket_name
from sdk._guard.peer_user import is_own_user

if TYPE_CHECKING:
    from sdk._xds.snapshot import Deployment, Snapshot

logger = logging.getLogger("sdk.ingress")

# Seconds between two tries to listen: an earlier proxy of this node may not have ended yet.
_RETRY_S = 0.2
# Bytes that a program may leave unread.
_MAX_UNREAD = 64 << 20
# Seconds that a long poll stays open, and after which a program that does not poll again has ended.
_POLL_S, _GONE_S = 10.0, 5.0


class _Program(Protocol):
    """A program that calls deployments."""

    def tell(self, key: DeploymentKey, line: bytes) -> None:
        """Send the state of a deployment."""

    def close(self) -> None:
        """Let go of it: the proxy stops."""


class _Connected:
    """A program on this node.

    Args:
        writer: Its connection.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def tell(self, key: DeploymentKey, line: bytes) -> None:
        """Send the state of a deployment."""
        self._writer.write(line)
        if self._writer.transport.get_write_buffer_size() > _MAX_UNREAD:
            self.close()

    def close(self) -> None:
        """Close its connection."""
        self._writer.transport.abort()


class _Polling:
    """A program on a node without a proxy, which calls :meth:`EndpointFeed.poll`.

    Attributes:
        lines: Newest states that it has not got yet.
        changed: Set while there are some.
        expiry: Ends its interests if it does not poll again.
    """

    def __init__(self) -> None:
        self.lines: dict[DeploymentKey, bytes] = {}
        self.changed = asyncio.Event()
        self.expiry: asyncio.TimerHandle | None = None

    def tell(self, key: DeploymentKey, line: bytes) -> None:
        """Keep the state of a deployment for the next answer."""
        self.lines[key] = line
        self.changed.set()

    def close(self) -> None:
        """Answer its poll."""
        self.changed.set()


class EndpointFeed:
    """The feed of one proxy.

    Args:
        on_waiting: Called when the number of waiting calls in a program has changed.
    """

    def __init__(self, on_waiting: Callable[[], None] = lambda: None) -> None:
        self._on_waiting = on_waiting
        self._server: asyncio.Server | None = None
        self._deployments: Mapping[DeploymentKey, Deployment] | None = None
        # Program → deployments that it calls → calls that wait there for the first replica.
        self._interests: dict[_Program, dict[DeploymentKey, int]] = {}
        self._polling: dict[str, _Polling] = {}

    async def listen(self, node_id: str) -> None:
        """Listen on the node's socket, as soon as it is free.

        Args:
            node_id: Ray's id of the node.
        """
        while self._server is None:
            try:
                self._server = await asyncio.start_unix_server(self._serve, f"\0{socket_name(node_id)}")
            except OSError as error:
                logger.debug("the socket for callers on this node is not free: %s", error)
                await asyncio.sleep(_RETRY_S)

    def stop(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        for program in list(self._interests):
            program.close()

    @property
    def waiting(self) -> dict[DeploymentKey, int]:
        """Number of calls that wait for a first replica, by deployment."""
        total: dict[DeploymentKey, int] = {}
        for interests in self._interests.values():
            for key, number in interests.items():
                if number:
                    total[key] = total.get(key, 0) + number
        return total

    def publish(self, snapshot: Snapshot) -> None:
        """Send the programs the changes in a routing table."""
        before, self._deployments = self._deployments, _by_key(snapshot)
        for program, interests in list(self._interests.items()):
            for key in interests:
                if before is None or before.get(key) != self._deployments.get(key):
                    self._tell(program, key)

    def fail(self, key: DeploymentKey, reason: str) -> None:
        """Send the programs whose calls wait for a deployment the reason why it can't start."""
        for program, interests in list(self._interests.items()):
            if interests.get(key):
                self._tell(program, key, reason)

    async def poll(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> list[bytes]:
        """Return the new states of deployments as lines, as soon as there are some, or nothing after 10 s.

        Args:
            program_id: Random name of a program on a node without a proxy.
            interests: The deployments that it calls, each with its calls that wait for the first replica.
        """
        program = self._note(program_id, interests)
        if program.expiry is not None:
            program.expiry.cancel()
        try:
            async with asyncio.timeout(_POLL_S):
                await program.changed.wait()
        except TimeoutError:
            pass  # a program that is alive polls again
        finally:
            program.expiry = asyncio.get_running_loop().call_later(_GONE_S, self._expire, program_id)
        lines = list(program.lines.values())
        program.lines.clear()
        program.changed.clear()
        return lines

    def note(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> None:
        """Take a change of a program's interests while its poll is open.

        Args:
            program_id: The program.
            interests: Those that have changed.
        """
        self._note(program_id, interests)

    # -- inside -------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not is_own_user(writer.get_extra_info("socket")):
            writer.close()
            return
        program = _Connected(writer)
        self._interests[program] = {}
        try:
            while line := await reader.readline():
                self._take(program, *decode_interest(line))
        except (OSError, ValueError) as error:
            logger.debug("the connection to a caller on this node ended: %s", error)
        finally:
            writer.close()
            self._forget(program)

    def _note(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> _Polling:
        program = self._polling.get(program_id)
        if program is None:
            program = self._polling[program_id] = _Polling()
            self._interests[program] = {}
        for key, waiting in interests.items():
            self._take(program, key, waiting)
        return program

    def _expire(self, program_id: str) -> None:
        self._forget(self._polling.pop(program_id))

    def _take(self, program: _Program, key: DeploymentKey, waiting: int) -> None:
        interests = self._interests[program]
        is_new = key not in interests
        changed = interests.get(key, 0) != waiting
        interests[key] = waiting
        if is_new and self._deployments is not None:
            self._tell(program, key)
        if changed:
            self._on_waiting()

    def _forget(self, program: _Program) -> None:
        if any(self._interests.pop(program).values()):
            self._on_waiting()

    def _tell(self, program: _Program, key: DeploymentKey, failure: str = "") -> None:
        assert self._deployments is not None
        deployment = self._deployments.get(key)
        state = State(*key, False)
        if deployment is not None:
            addresses = tuple(
                Address(each.replica_id, each.host, each.port, each.node_id, each.socket)
                for each in deployment.endpoints
            )
            state = State(*key, True, addresses, failure, deployment.max_waiting)
        program.tell(key, encode_state(state))


def _by_key(snapshot: Snapshot) -> dict[DeploymentKey, Deployment]:
    return {
        (application.name, deployment.name): deployment
        for application in (*snapshot.applications, *snapshot.inner)
        for deployment in application.deployments
    }

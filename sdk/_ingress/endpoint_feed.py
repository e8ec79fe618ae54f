"""The feed that sends programs the replicas of the deployments that they call.

In the form of ``sdk/_channel/feed.py``: over a unix socket to the programs on this node, and by long poll to those on
nodes without a proxy. Each program names the deployments that it calls, gets their state at once, and the difference
after every change, which is encoded once for all programs that hold the same state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, cast

from sdk._channel.feed import Address, DeploymentKey, State, StateChange, decode_interest, encode_change, socket_name
from sdk._guard.peer_user import is_own_user
from sdk._ingress.deployments import Deployments
from sdk._xds.endpoints import Endpoints

if TYPE_CHECKING:
    from sdk._xds.snapshot import Deployment, Snapshot

logger = logging.getLogger("sdk.ingress")

# Seconds between two tries to listen: an earlier proxy of this node may not have ended yet.
_RETRY_S = 0.2
# Bytes that a program may leave unread.
_MAX_UNREAD = 64 << 20
# Seconds that a long poll stays open, and after which a program that does not poll again has ended.
_POLL_S, _GONE_S = 10.0, 5.0


# What a program holds of a deployment: the version of its state, and the endpoints.
_Held = tuple[int, Endpoints]
_NOTHING: _Held = (0, Endpoints())


class _Program(Protocol):
    """A program that calls deployments.

    Attributes:
        held: What it holds of each.
    """

    held: dict[DeploymentKey, _Held]

    def tell(self, key: DeploymentKey, failure: str) -> None:
        """Send what has changed of a deployment.

        Args:
            key: The deployment.
            failure: Reason why it can't start, or empty.
        """

    def close(self) -> None:
        """Let go of it: the proxy stops."""


# Returns what has changed of a deployment since a program heard of it last, as a line. The program then holds that.
_Encode = Callable[[_Program, DeploymentKey, str], bytes]


class _Connected:
    """A program on this node.

    Args:
        writer: Its connection.
        encode: Returns what has changed.
    """

    def __init__(self, writer: asyncio.StreamWriter, encode: _Encode) -> None:
        self._writer = writer
        self._encode = encode
        self.held: dict[DeploymentKey, _Held] = {}

    def tell(self, key: DeploymentKey, failure: str) -> None:
        """Send what has changed of a deployment."""
        self._writer.write(self._encode(self, key, failure))
        if self._writer.transport.get_write_buffer_size() > _MAX_UNREAD:
            self.close()

    def close(self) -> None:
        """Close its connection."""
        self._writer.transport.abort()


class _Polling:
    """A program on a node without a proxy, which calls :meth:`EndpointFeed.poll`.

    Args:
        encode: Returns what has changed.

    Attributes:
        changed: Set while there is something that it has not got yet.
        expiry: Ends its interests if it does not poll again.
    """

    def __init__(self, encode: _Encode) -> None:
        self._encode = encode
        self.held: dict[DeploymentKey, _Held] = {}
        # Deployments that have changed → reason why it can't start.
        self._changes: dict[DeploymentKey, str] = {}
        self.changed = asyncio.Event()
        self.expiry: asyncio.TimerHandle | None = None

    def tell(self, key: DeploymentKey, failure: str) -> None:
        """Let the next answer have what has changed of a deployment."""
        self._changes[key] = failure
        self.changed.set()

    def take_lines(self) -> list[bytes]:
        """Return what has changed since it got the last answer."""
        changes, self._changes = self._changes, {}
        self.changed.clear()
        return [self._encode(self, key, failure) for key, failure in changes.items()]

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
        self._deployments = Deployments()
        # Number of published tables. A program has connected to this feed only, so its versions need no other.
        self._version = 0
        # Deployment, and version that programs hold → what has changed since.
        self._lines: dict[tuple[DeploymentKey, int], bytes] = {}
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
        is_first = not self._version
        self._version += 1
        self._lines.clear()
        differing = self._deployments.take(snapshot)
        for program, interests in list(self._interests.items()):
            for key in interests if is_first else interests.keys() & differing.keys():
                program.tell(key, "")

    def fail(self, key: DeploymentKey, reason: str) -> None:
        """Send the programs whose calls wait for a deployment the reason why it can't start."""
        if not self._version:
            return  # this proxy has no table yet; while calls wait, the reason comes again
        for program, interests in list(self._interests.items()):
            if interests.get(key):
                program.tell(key, reason)

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
        return program.take_lines()

    def note(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> None:
        """Take a change of a program's interests while its poll is open.

        A program that is not known polled an earlier proxy of this node. Its next poll has all of its interests.

        Args:
            program_id: The program.
            interests: Those that have changed.
        """
        if program_id in self._polling:
            self._note(program_id, interests)

    # -- inside -------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not is_own_user(writer.get_extra_info("socket")):
            writer.close()
            return
        program = _Connected(writer, self._encode)
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
            program = self._polling[program_id] = _Polling(self._encode)
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
        if is_new and self._version:
            program.tell(key, "")
        if changed:
            self._on_waiting()

    def _forget(self, program: _Program) -> None:
        if any(self._interests.pop(program).values()):
            self._on_waiting()

    def _encode(self, program: _Program, key: DeploymentKey, failure: str) -> bytes:
        deployment = self._deployments.by_key.get(key)
        endpoints = cast("Endpoints", deployment.endpoints) if deployment is not None else _NOTHING[1]
        base, before = program.held.get(key, _NOTHING)
        program.held[key] = self._version, endpoints
        line = self._lines.get((key, base)) if not failure else None
        if line is None:
            line = encode_change(self._change(key, deployment, failure, base, before))
            if not failure:
                self._lines[key, base] = line
        return line

    def _change(
        self, key: DeploymentKey, deployment: Deployment | None, failure: str, base: int, before: Endpoints
    ) -> StateChange:
        if deployment is None:
            return StateChange(0, self._version, State(*key, False))
        added, removed = before.differences(cast("Endpoints", deployment.endpoints))
        addresses = tuple(Address(each.replica_id, each.host, each.port, each.node_id, each.socket) for each in added)
        state = State(*key, True, addresses, failure, deployment.max_waiting)
        return StateChange(base, self._version, state, tuple(each.replica_id for each in removed))

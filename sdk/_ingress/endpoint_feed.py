"""The feed that sends the programs on this node the replicas of the deployments that they call.

Over a unix socket, in the form of ``sdk/_channel/feed.py``. Each program names the deployments that it calls, and gets
their state at once and after every change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sdk._channel.feed import Address, DeploymentKey, State, decode_interest, encode_state, socket_name

if TYPE_CHECKING:
    from sdk._xds.snapshot import Deployment, Snapshot

logger = logging.getLogger("sdk.ingress")

# Seconds between two tries to listen: an earlier proxy of this node may not have ended yet.
_RETRY_S = 0.2
# Bytes that a program may leave unread.
_MAX_UNREAD = 64 << 20


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
        self._interests: dict[asyncio.StreamWriter, dict[DeploymentKey, int]] = {}

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
        for writer in list(self._interests):
            writer.transport.abort()

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
        for writer, interests in list(self._interests.items()):
            for key in interests:
                if before is None or before.get(key) != self._deployments.get(key):
                    self._tell(writer, key)

    def fail(self, key: DeploymentKey, reason: str) -> None:
        """Send the programs whose calls wait for a deployment the reason why it can't start."""
        for writer, interests in list(self._interests.items()):
            if interests.get(key):
                self._tell(writer, key, reason)

    # -- inside -------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _is_own_user(writer):
            writer.close()
            return
        interests = self._interests[writer] = {}
        try:
            while line := await reader.readline():
                key, waiting = decode_interest(line)
                is_new = key not in interests
                changed = interests.get(key, 0) != waiting
                interests[key] = waiting
                if is_new and self._deployments is not None:
                    self._tell(writer, key)
                if changed:
                    self._on_waiting()
        except (OSError, ValueError) as error:
            logger.debug("the connection to a caller on this node ended: %s", error)
        finally:
            del self._interests[writer]
            writer.close()
            if any(interests.values()):
                self._on_waiting()

    def _tell(self, writer: asyncio.StreamWriter, key: DeploymentKey, failure: str = "") -> None:
        assert self._deployments is not None
        deployment = self._deployments.get(key)
        state = State(*key, False)
        if deployment is not None:
            addresses = tuple(
                Address(each.replica_id, each.host, each.port, each.node_id, each.socket)
                for each in deployment.endpoints
            )
            state = State(*key, True, addresses, failure, deployment.max_waiting)
        writer.write(encode_state(state))
        if writer.transport.get_write_buffer_size() > _MAX_UNREAD:
            writer.transport.abort()


def _by_key(snapshot: Snapshot) -> dict[DeploymentKey, Deployment]:
    return {
        (application.name, deployment.name): deployment
        for application in (*snapshot.applications, *snapshot.inner)
        for deployment in application.deployments
    }


def _is_own_user(writer: asyncio.StreamWriter) -> bool:
    """Return True if the other end runs as this user: an abstract socket has no permissions."""
    raw = writer.get_extra_info("socket")
    _, user, _ = struct.unpack("3i", raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(user == os.geteuid())

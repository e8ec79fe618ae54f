"""Heartbeats of a node: replicas renew their leases with the proxy of their node, and that renews all in one call.

A replica keeps a connection to the proxy's abstract unix socket (unix(7)), and sends a line for each heartbeat. The
proxy answers when the controller has renewed the lease. A replica whose proxy is stuck gets no answer, and renews with
the controller itself. The answers of one call arrive together, so the next heartbeats do too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import pickle
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sdk._channel.replicas import connect_locally
from sdk._guard.peer_user import is_own_user
from sdk._ingress.cluster import HEARTBEAT_S

if TYPE_CHECKING:
    from sdk._ingress.registry import Lease
    from sdk.options import GrpcOptions

logger = logging.getLogger("sdk.ingress")

# Seconds in which heartbeats of other replicas join the first one.
_GATHER_S = 0.25
# Seconds that a replica waits for an answer. It then has as many left of its lease.
_ANSWER_S = HEARTBEAT_S + 2 * _GATHER_S + 0.5
# Most seconds by which a replica waits longer. All replicas of a node begin to wait together, and each calls the
# controller when its time is over: 200 calls at once would keep that busy for 0.2 s, and the next answers late.
_SPREAD_S = 0.5
# Seconds between two tries to listen: an earlier proxy of this node may not have ended yet.
_RETRY_S = 0.2
# Longest line: the options of the ingress.
_MAX_LINE = 1 << 20

#: Renews leases: replica id → options that it serves with. Returns the lease, and the replicas that must register.
RenewAll = Callable[[Mapping[str, "GrpcOptions"]], Awaitable[tuple["Lease", frozenset[str]]]]


def socket_name(node_id: str) -> str:
    """Return the name of the abstract unix socket for a node's heartbeats, without the NUL byte before it."""
    return f"sdk-leases-{node_id}"


class NodeLeases:
    """The leases of one node's replicas, in its proxy.

    Args:
        renew_all: Renews leases at the controller.
        heartbeat_s: Seconds between two heartbeats of a replica, and so at least between two calls.
    """

    def __init__(self, renew_all: RenewAll, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._renew_all = renew_all
        self._heartbeat_s = heartbeat_s
        self._server: asyncio.Server | None = None
        # Replica → the options that it serves with, and its connection.
        self._waiting: dict[str, tuple[GrpcOptions, asyncio.StreamWriter]] = {}
        self._connections: set[asyncio.StreamWriter] = set()
        self._has_waiting = asyncio.Event()

    async def listen(self, node_id: str) -> None:
        """Listen on the node's socket, as soon as it is free, and renew leases without end.

        Args:
            node_id: Ray's id of the node.
        """
        while self._server is None:
            try:
                self._server = await asyncio.start_unix_server(
                    self._serve, f"\0{socket_name(node_id)}", limit=_MAX_LINE
                )
            except OSError as error:
                logger.debug("the socket for heartbeats on this node is not free: %s", error)
                await asyncio.sleep(_RETRY_S)
        loop = asyncio.get_running_loop()
        renewed_at = loop.time() - self._heartbeat_s
        while True:
            await self._has_waiting.wait()
            await asyncio.sleep(max(0.0, renewed_at + self._heartbeat_s - loop.time()) + _GATHER_S)
            await self._renew()
            renewed_at = loop.time()

    def stop(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.transport.abort()

    async def _renew(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._has_waiting.clear()
        try:
            lease, unknown = await self._renew_all(
                {replica_id: options for replica_id, (options, _) in waiting.items()}
            )
        except Exception as error:  # the controller is being restarted; the replicas ask it themselves
            logger.debug("can't renew the leases of this node: %s", error)
            return
        granted = _encode(["lease", _encode_value(lease)])
        for replica_id, (_, connection) in waiting.items():
            connection.write(_encode(["register"]) if replica_id in unknown else granted)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not is_own_user(writer.get_extra_info("socket")):
            writer.close()
            return
        self._connections.add(writer)
        try:
            while line := await reader.readline():
                replica_id, options = json.loads(line)
                self._waiting[replica_id] = _decode_value(options), writer
                self._has_waiting.set()
        except (OSError, ValueError) as error:
            logger.debug("the connection to a replica on this node ended: %s", error)
        finally:
            self._connections.discard(writer)
            writer.close()


class NodeHeartbeat:
    """The heartbeats of one replica to the proxy of its node.

    Args:
        node_id: Ray's id of the node.
        replica_id: The replica.
        answer_s: Seconds that it waits for an answer, at least.
    """

    def __init__(self, node_id: str, replica_id: str, answer_s: float = _ANSWER_S) -> None:
        self._node_id, self._replica_id = node_id, replica_id
        self._answer_s = answer_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def renew(self, options: GrpcOptions) -> Lease | None:
        """Renew the lease. Return None if the replica must register (again).

        Args:
            options: Options that the replica serves with.

        Raises:
            OSError: The node has no proxy, or that does not answer.
        """
        try:
            async with asyncio.timeout(self._answer_s + random.uniform(0, _SPREAD_S)):
                reader, writer = self._streams or await self._connect()
                writer.write(_encode([self._replica_id, _encode_value(options)]))
                line = await reader.readline()
        except (OSError, TimeoutError, asyncio.CancelledError):
            self.close()  # a late answer must not be taken for the next one's
            raise
        if not line:
            self.close()
            raise ConnectionResetError("the proxy has closed the connection")
        kind, *values = json.loads(line)
        lease: Lease | None = _decode_value(values[0]) if kind == "lease" else None
        return lease

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connected = connect_locally(socket_name(self._node_id))
        if not is_own_user(connected):
            connected.close()
            raise PermissionError("another user listens on the socket of the ingress")
        self._streams = await asyncio.open_unix_connection(sock=connected, limit=_MAX_LINE)
        return self._streams


def _encode(message: list[str]) -> bytes:
    return json.dumps(message).encode() + b"\n"


@lru_cache(maxsize=64)
def _encode_value(value: GrpcOptions | Lease) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


@lru_cache(maxsize=64)
def _decode_value(text: str) -> Any:
    # Both ends are processes of the same user, which the kernel has confirmed: unpickling gives nobody more rights.
    # Cached, so that equal options are one object, which is pickled once for the replicas of a node.
    return pickle.loads(base64.b64decode(text))

"""The replicas of one deployment as one event loop sees them: their connections, and the choice of one for a call."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from sdk._channel.connection import ReplicaConnection
from sdk._guard.between_nodes import own_between_nodes
from sdk._replica_protocol import CALLER_PREFACE, caller_preface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sdk._channel.feed import Address

# Seconds that a replica that could not be reached gets no calls while others can be.
_FAILED_S = 1.0
# Seconds until another try to connect to a replica whose queue of new connections is full.
_FULL_RETRY_S = 0.01
_CONNECT_TIMEOUT_S = 5.0
# Seconds after which an idle connection is closed, and between two looks for such ones.
IDLE_S, SWEEP_S = 60.0, 20.0
# More open calls that a replica of this node may have before one of another node gets the next.
_NODE_ADVANTAGE = 8
# Share of the average number of open calls that a model's replica may have before its calls go to the next in line.
_HOT = 1.25

# struct linger: close by a reset, which overtakes the bytes that were sent (socket(7)).
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_FULL = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL}


def connect_locally(name: str) -> socket.socket:
    """Return a socket that is connected to an abstract unix socket: that never takes time, and uvloop can't do it.

    Args:
        name: Its name, without the NUL byte before it.

    Raises:
        OSError: Nobody listens, or the queue of new connections is full.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        connected.connect(f"\0{name}")
    except OSError:
        connected.close()
        raise
    return connected


class Subchannel:
    """One replica, with the connections of this loop to it.

    Args:
        address: Its address.
        is_local: True if it is on this node.

    Attributes:
        open: Calls of this loop that it has, and those that are connecting to it.
        is_gone: True once it has left the routing table: its connections close after their calls.
        failed_until: Time until which others are preferred, by the loop's clock.
    """

    __slots__ = ("_connections", "_idle", "address", "failed_until", "is_gone", "is_local", "loop", "open")

    def __init__(self, address: Address, *, is_local: bool) -> None:
        self.address = address
        self.is_local = is_local
        self.open = 0
        self.is_gone = False
        self.failed_until = 0.0
        self.loop: asyncio.AbstractEventLoop
        self._idle: dict[ReplicaConnection, None] = {}  # ordered: the one that was used last is last
        self._connections: set[ReplicaConnection] = set()

    @property
    def preface(self) -> bytes:
        """The first bytes of a connection to it: those of another node say that they are ours."""
        if self.is_local and self.address.socket:
            return CALLER_PREFACE
        return caller_preface(own_between_nodes().secret)

    def idle_connection(self) -> ReplicaConnection | None:
        """Return the connection that was used last, or None."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if connection.is_open:
                return connection
        return None

    async def connect(self) -> ReplicaConnection:
        """Open a connection.

        Raises:
            OSError: The replica can't be reached.
        """
        self.loop = asyncio.get_running_loop()
        while True:
            connection = ReplicaConnection(self)
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await self._open(connection)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                await asyncio.sleep(_FULL_RETRY_S)
            else:
                return connection

    async def _open(self, connection: ReplicaConnection) -> None:
        """Connect, and wait until the replica has accepted the connection: its kernel may only have queued it."""
        address = self.address
        if self.is_local and address.socket:
            unix = connect_locally(address.socket)
            await self.loop.create_unix_connection(lambda: connection, sock=unix)
        else:
            host = "127.0.0.1" if self.is_local else address.host
            context = own_between_nodes().client_context()  # new each time: the files may be replaced
            transport, _ = await self.loop.create_connection(lambda: connection, host, address.port, ssl=context)
            tcp = transport.get_extra_info("socket")
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connections.add(connection)
        try:
            await connection.accepted
        except BaseException:
            connection.close()
            raise

    def release(self, connection: ReplicaConnection) -> None:
        """Take a connection back whose call has ended."""
        self.failed_until = 0.0
        if self.is_gone:
            connection.close()
        else:
            connection.idle_since = self.loop.time()
            self._idle[connection] = None

    def forget(self, connection: ReplicaConnection) -> None:
        """Take that a connection has closed."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)

    def leave(self) -> None:
        """Close the idle connections, and the others after their calls: the replica waits for that."""
        self.is_gone = True
        self.close_idle(float("inf"))

    def close_idle(self, before: float) -> None:
        """Close the connections that are idle since before this time."""
        for connection in list(self._idle):
            if connection.idle_since >= before:
                break
            connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._connections):
            connection.close()


class Replicas:
    """The replicas of one deployment.

    Args:
        node_id: Ray's id of this node.
        draw: Returns a random number from 0 to 1.

    Example:
        >>> from sdk._channel.feed import Address
        >>> replicas = Replicas("here")
        >>> replicas.update([Address("r1", "10.0.0.1", 4000, "here", "s1")])
        >>> replicas.choose(now=0.0).address.replica_id
        'r1'
    """

    def __init__(self, node_id: str, draw: Callable[[], float] = random.random) -> None:
        self._node_id = node_id
        self._draw = draw
        self._by_id: dict[str, Subchannel] = {}
        self._near: list[Subchannel] = []
        self._far: list[Subchannel] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Any:
        return iter(self._by_id.values())

    def enter(self, node_id: str) -> None:
        """Take that the program is on another node now, of another cluster: all replicas are to come."""
        self._node_id = node_id

    def update(self, addresses: Iterable[Address]) -> None:
        """Take the ready replicas; those that are no longer among them close their connections."""
        wanted = {address.replica_id: address for address in addresses}
        for replica_id, replica in list(self._by_id.items()):
            if wanted.get(replica_id) != replica.address:
                self._by_id.pop(replica_id).leave()
        for replica_id, address in wanted.items():
            if replica_id not in self._by_id:
                self._by_id[replica_id] = self._subchannel(address)
        self._near = [replica for replica in self._by_id.values() if replica.is_local]
        self._far = [replica for replica in self._by_id.values() if not replica.is_local]

    def change(self, added: Iterable[Address], removed: Iterable[str]) -> None:
        """Take what has changed of the ready replicas, first those that have left.

        Args:
            added: Addresses of replicas that are not among them.
            removed: Ids of replicas that are; they close their connections.

        Raises:
            ValueError: A removed replica is not among them, or an added one is.
        """
        for replica_id in removed:
            gone = self._by_id.pop(replica_id, None)
            if gone is None:
                raise ValueError(f"replica {replica_id!r} is not there")
            gone.leave()
            self._side(gone).remove(gone)
        for address in added:
            if address.replica_id in self._by_id:
                raise ValueError(f"replica {address.replica_id!r} is there already")
            new = self._by_id[address.replica_id] = self._subchannel(address)
            self._side(new).append(new)

    def _subchannel(self, address: Address) -> Subchannel:
        return Subchannel(address, is_local=address.node_id == self._node_id)

    def _side(self, replica: Subchannel) -> list[Subchannel]:
        return self._near if replica.is_local else self._far

    def choose(self, now: float, model_id: str = "") -> Subchannel | None:
        """Return the replica for a call.

        Of two random replicas, never the same twice, the one with fewer open calls, as in Ray Serve
        (https://docs.ray.io/en/latest/serve/architecture.html); of this node, unless those have far more.

        Args:
            now: The loop's time, in seconds.
            model_id: A model: its calls go to one replica, and to the next in line while that one is hot.

        Returns:
            The replica; None if none can be reached at present.
        """
        if model_id:
            return self._choose_for_model(model_id, now)
        near = self._less_loaded(self._near, now)
        if not self._far or (near is not None and near.open < _NODE_ADVANTAGE):
            return near
        far = self._less_loaded(self._far, now)
        if near is None or far is None:
            return near or far
        return near if near.open <= far.open + _NODE_ADVANTAGE else far

    def _less_loaded(self, replicas: list[Subchannel], now: float) -> Subchannel | None:
        count = len(replicas)
        if count == 0:
            return None
        if count == 1:
            first = replicas[0]
        else:
            place = int(self._draw() * count)
            first, second = replicas[place], replicas[place - 1 - int(self._draw() * (count - 1))]
            if second.open < first.open or first.failed_until > now:
                first = second
        if first.failed_until <= now:
            return first
        reachable = [replica for replica in replicas if replica.failed_until <= now]
        return min(reachable, key=lambda replica: replica.open, default=None)

    def _choose_for_model(self, model_id: str, now: float) -> Subchannel | None:
        # Rendezvous hashing: each replica that leaves moves only its own models.
        reachable = [replica for replica in self._by_id.values() if replica.failed_until <= now]
        limit = _HOT * (sum(replica.open for replica in reachable) + 1) / max(1, len(reachable))

        def rank(replica: Subchannel) -> bytes:
            return blake2b(f"{model_id}\0{replica.address.replica_id}".encode(), digest_size=8).digest()

        in_line = sorted(reachable, key=rank)
        return next(
            (replica for replica in in_line if replica.open + 1 <= max(1.0, limit)), in_line[0] if in_line else None
        )

    def next_try(self) -> float:
        """Return the time at which a replica that could not be reached is tried again, by the loop's clock."""
        return min((replica.failed_until for replica in self._by_id.values()), default=float("inf"))

    def mark_failed(self, replica: Subchannel, now: float) -> None:
        """Prefer others for a while: the replica could not be reached."""
        replica.failed_until = now + _FAILED_S

    def close_idle(self, before: float) -> None:
        """Close idle connections; see :meth:`Subchannel.close_idle`."""
        for replica in self._by_id.values():
            replica.close_idle(before)

    def close(self) -> None:
        """Close every connection."""
        for replica in self._by_id.values():
            replica.close()

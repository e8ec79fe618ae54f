"""Notice at once that a replica of this node has died. Otherwise calls go to it until its lease expires."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, cast

from sdk._guard.peer_user import peer_process
from sdk._ingress.deployments import Deployments
from sdk._xds.endpoints import Endpoints

if TYPE_CHECKING:
    from sdk._xds.snapshot import Deployment, Endpoint, Snapshot

logger = logging.getLogger("sdk.ingress")

_NONE = Endpoints()


class LocalReplicas:
    """The replicas of one node in the newest routing table, watched by their processes.

    A replica whose process can't be found, for example in another PID namespace, is not watched: its lease expires.

    Args:
        node_id: Ray's id of the node.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        # Replica id → file descriptor that is readable when its process has ended
        # (https://man7.org/linux/man-pages/man2/pidfd_open.2.html).
        self._processes: dict[str, int] = {}
        self._dead: set[str] = set()
        self._deployments = Deployments()
        self._has_dead = asyncio.Event()

    def follow(self, snapshot: Snapshot) -> None:
        """Watch the replicas of a new routing table, and no others."""
        gone: list[Endpoint] = []
        new: list[Endpoint] = []
        for key, before in self._deployments.take(snapshot).items():
            after = self._deployments.by_key.get(key)
            added, removed = _endpoints(before).differences(_endpoints(after))
            gone += filter(self._is_here, removed)
            new += filter(self._is_here, added)
        for endpoint in gone:
            if endpoint.replica_id in self._processes:
                self._forget(endpoint.replica_id)
            self._dead.discard(endpoint.replica_id)
        for endpoint in new:
            self._watch(endpoint)
        if not self._dead:
            self._has_dead.clear()

    def _is_here(self, endpoint: Endpoint) -> bool:
        return endpoint.node_id == self._node_id and bool(endpoint.socket)

    async def wait_dead(self) -> frozenset[str]:
        """Wait until replicas of the newest routing table are dead, and return their ids."""
        await self._has_dead.wait()
        return frozenset(self._dead)

    def stop(self) -> None:
        """Watch no replica any more."""
        for replica_id in list(self._processes):
            self._forget(replica_id)

    def _watch(self, endpoint: Endpoint) -> None:
        try:
            process = _open_process(endpoint.socket)
        except (ConnectionRefusedError, ProcessLookupError):
            self._bury(endpoint.replica_id)
        except OSError as error:
            logger.debug("the process of replica %s can't be watched: %s", endpoint.replica_id, error)
        else:
            self._processes[endpoint.replica_id] = process
            asyncio.get_running_loop().add_reader(process, self._on_process_end, endpoint.replica_id)

    def _on_process_end(self, replica_id: str) -> None:
        self._forget(replica_id)
        self._bury(replica_id)

    def _bury(self, replica_id: str) -> None:
        self._dead.add(replica_id)
        self._has_dead.set()

    def _forget(self, replica_id: str) -> None:
        process = self._processes.pop(replica_id)
        asyncio.get_running_loop().remove_reader(process)
        os.close(process)


def _endpoints(deployment: Deployment | None) -> Endpoints:
    return cast("Endpoints", deployment.endpoints) if deployment is not None else _NONE


def _open_process(name: str) -> int:
    """Return a file descriptor of the process that listens on an abstract unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        connection.connect(f"\0{name}")
        return os.pidfd_open(peer_process(connection)[0])

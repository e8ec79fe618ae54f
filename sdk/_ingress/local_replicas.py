"""Notice at once that a replica of this node has died. Otherwise calls go to it until its lease expires."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from sdk._guard.peer_user import peer_process

if TYPE_CHECKING:
    from sdk._xds.snapshot import Endpoint, Snapshot

logger = logging.getLogger("sdk.ingress")


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
        self._has_dead = asyncio.Event()

    def follow(self, snapshot: Snapshot) -> None:
        """Watch the replicas of a new routing table, and no others."""
        listed = {
            endpoint.replica_id: endpoint
            for application in (*snapshot.applications, *snapshot.inner)
            for deployment in application.deployments
            for endpoint in deployment.endpoints
            if endpoint.node_id == self._node_id and endpoint.socket
        }
        for gone in self._processes.keys() - listed.keys():
            self._forget(gone)
        self._dead &= listed.keys()
        if not self._dead:
            self._has_dead.clear()
        for new in listed.keys() - self._processes.keys() - self._dead:
            self._watch(listed[new])

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


def _open_process(name: str) -> int:
    """Return a file descriptor of the process that listens on an abstract unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        connection.connect(f"\0{name}")
        return os.pidfd_open(peer_process(connection)[0])

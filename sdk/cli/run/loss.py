"""Notices that what ``sdk run`` serves has gone: its applications, the ingress, or the Ray cluster."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from sdk.errors import ClusterError

if TYPE_CHECKING:
    from sdk._serving_status import Status

_POLL_S = 1.0
_CONNECT_S = 2.0
# Polls in a row that find nothing: a controller that is restarted is away for some seconds.
_MISSED_POLLS = 3
_MISSED_CONNECTS = 2


def is_listening(address: str) -> bool:
    """Return whether something accepts connections at an address, ``"127.0.0.1:6379"``."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError:
        return False
    return True


def describe_loss(status: Status, names: Collection[str]) -> str:
    """Return what has gone of the applications and the ingress; empty if the command still serves.

    Args:
        status: The state of the cluster.
        names: The applications of the command.
    """
    running = {application.name for application in status.applications}
    listed = ", ".join(map(repr, names))
    if not running.intersection(names):
        if not status.proxies and not running:
            return f"Ray Serve and the ingress were shut down by another program; {listed} is no longer served."
        return f"{listed} was deleted by another program."
    if not status.proxies:
        return f"The ingress was shut down by another program; {listed} can no longer be called."
    return ""


class LossWatch:
    """Polls the state of the cluster in a thread, since a call to a cluster that has gone may block for a minute.

    Args:
        address: Address of the cluster's GCS.
        names: The applications of the command; may change meanwhile.
        read_status: Returns the state of the cluster.

    Attributes:
        status: The last state of the cluster; None before the first.
        loss: What has gone; empty as long as the command serves.
        is_cluster_lost: True once the cluster does not accept connections any more.
        over: Set once something has gone.
    """

    def __init__(self, address: str, names: Collection[str], read_status: Callable[[], Status]) -> None:
        self._address, self._names, self._read_status = address, names, read_status
        self.status: Status | None = None
        self.loss = ""
        self.is_cluster_lost = False
        self.over = threading.Event()
        self._missed = 0

    def start(self) -> None:
        """Start to poll."""
        threading.Thread(target=self._poll, name="loss-watch", daemon=True).start()
        threading.Thread(target=self._poll_cluster, name="loss-watch-cluster", daemon=True).start()

    def stop(self) -> None:
        """Stop to poll."""
        self.over.set()

    def look_at_cluster(self) -> None:
        """Note once whether the cluster has gone: before its end is waited for, for example."""
        if not is_listening(self._address):
            self._lose_cluster()

    def look(self) -> None:
        """Read the state once, and note what has gone."""
        try:
            self.status = self._read_status()
        except ClusterError:
            return  # if the cluster has gone, the other thread sees it; everything else is restarted
        loss = describe_loss(self.status, self._names)
        self._missed = self._missed + 1 if loss else 0
        if self._missed >= _MISSED_POLLS:
            self._end(loss)

    def _poll(self) -> None:
        while not self.over.wait(_POLL_S):
            self.look()

    def _poll_cluster(self) -> None:
        missed = 0
        while not self.over.wait(_POLL_S):
            missed = 0 if is_listening(self._address) else missed + 1
            if missed >= _MISSED_CONNECTS:
                self._lose_cluster()

    def _lose_cluster(self) -> None:
        self.is_cluster_lost = True
        self._end(f"The Ray cluster at {self._address} has gone.")

    def _end(self, loss: str) -> None:
        self.loss = self.loss or loss
        self.over.set()

"""Reads the logs of every node of the cluster, through an actor on each.

Ray's own log API needs its dashboard, which a local Ray does not have, and knows neither the access log nor Envoy's. An
actor needs only what the cluster runs on anyway, tokens and TLS included, and ends with this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sdk._error_text import one_line
from sdk._ingress.cluster import find_controller
from sdk._serve import node_logs
from sdk._serve.node_logs import Entry, NodeReader, Query

if TYPE_CHECKING:
    from sdk._ingress.controller import IngressStatus

# Seconds in which a node's actor has to start and to read; later it counts as unreachable.
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """Entries of all nodes.

    Attributes:
        entries: By time. Each has the field ``node`` too: Ray's id of its node.
        nodes: Number of nodes that were read.
        unreachable: Address of each node that was not, with the reason.
    """

    entries: list[Entry]
    nodes: int
    unreachable: Mapping[str, str] = field(default_factory=dict)


class ClusterLogs:
    """The logs of the cluster that this process is connected to. Each reading has what is new since the last.

    Args:
        query: The entries to look for.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        self._readers: dict[str, Any] = {}

    def read(self, *, timeout_s: float = _TIMEOUT_S) -> Found:
        """Return the new entries of the nodes that are alive now.

        Args:
            timeout_s: Seconds that the nodes have to answer.
        """
        query = with_places(self._query)
        addresses = {
            node["NodeID"]: str(node["NodeManagerAddress"])
            for node in ray.nodes()  # type: ignore[no-untyped-call]
            if node["Alive"]
        }
        for node_id in addresses.keys() - self._readers.keys():
            self._readers[node_id] = _start_reader(node_id)
        asked = {node_id: self._readers[node_id].read.remote(query) for node_id in addresses}
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
        entries: list[Entry] = []
        unreachable: dict[str, str] = {}
        for node_id, answer in asked.items():
            try:
                if answer not in ready:
                    raise TimeoutError(f"no answer within {timeout_s:g} s")
                entries += ({**entry, "node": node_id} for entry in ray.get(answer))
            except (ray.exceptions.RayError, OSError) as error:
                unreachable[addresses[node_id]] = one_line(error)
                ray.kill(self._readers.pop(node_id))
        entries.sort(key=lambda entry: entry["time"])
        if query.tail is not None:
            del entries[: max(0, len(entries) - query.tail)]
        self._query = replace(self._query, tail=None)  # what is new is wanted whole
        return Found(entries, len(addresses) - len(unreachable), unreachable)


def with_places(query: Query) -> Query:
    """Return a query with what the ingress knows: the place of the access log, and the deployments.

    Args:
        query: The query. If there is no ingress, or it does not answer, it is returned as it is.
    """
    controller = find_controller()
    if controller is None:
        return query
    try:
        status: IngressStatus = ray.get(controller.status.remote(), timeout=5)
    except ray.exceptions.RayError:  # it is being restarted
        return query
    known = tuple(
        (application.name, deployment.name)
        for application in (*status.snapshot.applications, *status.snapshot.inner)
        for deployment in application.deployments
    )
    access_log = status.options.access_log
    return replace(query, access_log="" if access_log in (None, "otlp") else access_log, known=known)


def _start_reader(node_id: str) -> Any:
    ray.cloudpickle.register_pickle_by_value(node_logs)  # type: ignore[no-untyped-call]
    try:
        return (
            ray.remote(NodeReader)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
            .remote(node_id)
        )
    finally:
        ray.cloudpickle.unregister_pickle_by_value(node_logs)  # type: ignore[no-untyped-call]

"""The ingress in a Ray cluster: actor names, lease times, and lookups in Ray's GCS."""

from __future__ import annotations

from typing import Any

import ray

NAMESPACE = "sdk-ingress"
CONTROLLER_NAME = "controller"

#: Seconds between two heartbeats of a replica, and without a heartbeat until its lease expires.
HEARTBEAT_S, LEASE_S = 2.0, 7.0
#: The same, while the proxy of its node is heard of: that reports the end of the replica's process at once, and Envoy
#: checks its health. On a machine whose cores are all busy, a heartbeat may come late although the replica serves.
WATCHED_LEASE_S = 30.0
#: Seconds until the lease of a proxy expires. Longer, because its Envoy keeps serving while the proxy is restarted:
#: callers that wait for its acknowledgement must not give up before it is back.
PROXY_LEASE_S = 15.0


def proxy_name(node_id: str) -> str:
    """Return the name of the proxy actor of a node."""
    return f"proxy-{node_id}"


def find_controller() -> Any | None:
    """Return a handle to the ingress controller; None if the ingress is not running. Blocks on a call to the GCS."""
    try:
        return ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)
    except ValueError:
        return None


def is_draining(node_id: str) -> bool:
    """Return whether Ray drains a node: it is idle, or its machine will be preempted. Blocks on a call to the GCS.

    Args:
        node_id: Ray's id of the node.
    """
    # Ray has no public API for this. Ray Train calls the same method. Without it, no node counts as draining.
    state = getattr(getattr(ray._private, "state", None), "state", None)
    draining_nodes = getattr(state, "get_draining_nodes", None)
    return draining_nodes is not None and node_id in draining_nodes()

"""The names of the ingress's actors, and how others find them."""

from __future__ import annotations

from typing import Any

import ray

NAMESPACE = "sdk-ingress"
CONTROLLER_NAME = "controller"

#: Seconds between two heartbeats of a replica, and without one until it is forgotten.
HEARTBEAT_S, LEASE_S = 2.0, 7.0
#: The same for a proxy. Longer, because its Envoy serves on while the proxy is being restarted: who waits for its
#: acknowledgement must not give up before it is back.
PROXY_LEASE_S = 15.0


def proxy_name(node_id: str) -> str:
    """Return the name of the proxy actor of a node."""
    return f"proxy-{node_id}"


def find_controller() -> Any | None:
    """Return a handle to the ingress controller, or None when the ingress does not run. Asks Ray, and waits for it."""
    try:
        return ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)
    except ValueError:
        return None

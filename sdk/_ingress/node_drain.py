"""Whether Ray takes a node away soon: it is idle, or its machine will be preempted."""

from __future__ import annotations

import ray


def is_draining(node_id: str) -> bool:
    """Tell whether a node is being drained. Asks Ray, and waits for it.

    Args:
        node_id: Ray's id of the node.
    """
    # Ray has no public name for it. Ray Train asks here, too; a Ray without it is one that does not say.
    ask = getattr(getattr(ray._private, "state", None), "state", None)
    draining_nodes = getattr(ask, "get_draining_nodes", None)
    return draining_nodes is not None and node_id in draining_nodes()

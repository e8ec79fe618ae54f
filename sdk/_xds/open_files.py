"""Connections that Envoy has file descriptors for: it aborts, with every call of its node, when it needs one more."""

from __future__ import annotations

import resource

_MOST = 100_000


def max_connections() -> int:
    """Return the limit for the connections of clients, and for those to the replicas of a deployment.

    That is half of the files that this process may open; Envoy, its child, has the same limit.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else min(files // 2, _MOST)

"""Wait until every proxy routes to all current replicas of an application."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sdk.errors import IngressError

if TYPE_CHECKING:
    from sdk._serving_status import Status

_TIMEOUT_S = 30.0
_POLL_INTERVAL_S = 0.1


def pending_routes(status: Status, name: str) -> str:
    """Return a description of the routes that an application still lacks.

    Args:
        status: The state of the cluster.
        name: The application's name.

    Returns:
        The description; empty if every call reaches the current replicas.
    """
    behind = [proxy.problem or f"the proxy at {proxy.address}" for proxy in status.proxies if not proxy.up_to_date]
    if behind:
        return f"waiting for {', '.join(behind)}"
    for application in status.applications:
        for deployment in application.deployments if application.name == name else ():
            if not deployment.is_routed:
                routed = len(deployment.endpoints)
                return f"{routed} of {deployment.replicas} replicas of {deployment.name!r} are routed to"
    return ""


def wait_until_routed(name: str, read_status: Callable[[], Status], timeout_s: float = _TIMEOUT_S) -> None:
    """Wait until every call reaches the current replicas of an application.

    Usually the first check succeeds: Ray Serve counts a replica as ready only after it has registered, and an old one
    as gone only after no proxy routes to it. Both give up when a proxy takes too long.

    Args:
        name: The application's name.
        read_status: Returns the state of the cluster.
        timeout_s: Seconds to wait.

    Raises:
        IngressError: Routes are still missing after that time; the message names them.
    """
    deadline = time.monotonic() + timeout_s
    while missing := pending_routes(read_status(), name):
        if time.monotonic() >= deadline:
            raise IngressError(f"Application {name!r} runs, but is not routed to after {timeout_s:g} s: {missing}.")
        time.sleep(_POLL_INTERVAL_S)

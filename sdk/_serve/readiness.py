"""Whether what Ray Serve runs is what every proxy routes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sdk.errors import IngressError

if TYPE_CHECKING:
    from sdk._serve.status import Status

_PATIENCE_S = 30.0
_PAUSE_S = 0.1


def not_routed(status: Status, name: str) -> str:
    """Return what of an application is not routed as it runs; empty when every call reaches what was deployed.

    Args:
        status: The state of everything.
        name: The application's name.
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


def wait_routed(name: str, look: Callable[[], Status], patience_s: float = _PATIENCE_S) -> None:
    """Wait until every call reaches what was deployed.

    Ray Serve calls a replica ready when it has registered, and an old one gone when no proxy routes to it, unless a
    proxy takes so long to follow that neither can be waited for. So this mostly looks once.

    Args:
        name: The application's name.
        look: Returns the state of everything.
        patience_s: Seconds to wait.

    Raises:
        IngressError: Something is not routed after that time; the text says what.
    """
    deadline = time.monotonic() + patience_s
    while missing := not_routed(look(), name):
        if time.monotonic() >= deadline:
            raise IngressError(f"Application {name!r} runs, but is not routed to after {patience_s:g} s: {missing}.")
        time.sleep(_PAUSE_S)

"""Wait until Ray Serve has started or deleted applications.

Ray Serve's own waits look once a second, and never end if another program deletes the application meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from ray.serve.schema import ApplicationStatus as ServeState

from sdk._serve.failures import explain
from sdk._serve.internals import application_states
from sdk._serve.ray_connection import ray_errors

_POLL_INTERVAL_S = 0.1
_FAILED = (ServeState.DEPLOY_FAILED, ServeState.UNHEALTHY)


def started(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Wait for applications that were deployed, and yield each as soon as it runs or has failed.

    Args:
        names: Their names.

    Yields:
        The name, and the reason why it failed to start; the reason is empty if it runs.

    Raises:
        ClusterError: Ray Serve does not answer.
    """
    waiting = set(names)
    while waiting:
        states = _states()
        for name in sorted(waiting):
            state = states.get(name, ServeState.DELETING)
            if state is ServeState.DEPLOYING or state is ServeState.NOT_STARTED:
                continue
            waiting.discard(name)
            if state is ServeState.DELETING:
                yield name, "another program has deleted it"
            else:
                yield name, (explain(name) or "Ray Serve gives no reason") if state in _FAILED else ""
        time.sleep(_POLL_INTERVAL_S if waiting else 0)


def wait_until_deleted(name: str) -> None:
    """Wait until an application has gone, or another program has deployed it again.

    Args:
        name: Its name.

    Raises:
        ClusterError: Ray Serve does not answer.
    """
    while _states().get(name) is ServeState.DELETING:
        time.sleep(_POLL_INTERVAL_S)


def _states() -> dict[str, ServeState]:
    with ray_errors("Ray Serve failed"):
        return application_states()

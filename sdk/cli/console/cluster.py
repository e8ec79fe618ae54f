"""The state of the cluster for the page: applications, deployments, proxies, and the calls of the last seconds."""

from __future__ import annotations

import json
import time
from threading import Lock
from typing import Any

from sdk._extras import import_with_extra
from sdk.errors import ClusterError, MissingExtraError

# Seconds until the console looks again for a cluster that it did not find.
_RETRY_S = 10.0


class Cluster:
    """A Ray cluster, to which the first reading connects. Its methods block; threads may share it.

    Args:
        address: Its address; None for ``RAY_ADDRESS``, then for one that runs on this machine.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._lock = Lock()
        self._origin = ""
        self._calls: Any = None
        self._problem = ""
        self._tried = float("-inf")

    def read(self) -> dict[str, Any]:
        """Return the state as a JSON value.

        ``status`` has what ``sdk status --json`` prints, ``calls`` what ``sdk top --json`` prints; each is null if it
        is not known, for the reasons in ``problems``.
        """
        with self._lock:
            if self._calls is None and not self._connect():
                return {"cluster": "", "status": None, "calls": None, "problems": [self._problem]}
            from sdk._serve.api import status as read_status
            from sdk.cli.status_view import as_json
            from sdk.cli.top.view import as_json as calls_as_json

            status, problems = None, []
            try:
                status = json.loads(as_json(read_status()))
            except ClusterError as error:  # Ray's head, or a controller, is being restarted
                problems.append(str(error))
            figures = self._calls.figures()
            if self._calls.problem:
                problems.append(self._calls.problem)
            calls = None if figures is None else json.loads(calls_as_json(figures))
            return {"cluster": self._origin, "status": status, "calls": calls, "problems": problems}

    def _connect(self) -> bool:
        """Connect, and return whether that succeeded."""
        if time.monotonic() < self._tried + _RETRY_S:
            return False
        self._tried = time.monotonic()
        try:
            cluster = import_with_extra("sdk.cli.ray_cluster", "the state of the cluster")
            import_with_extra("sdk._serve.api", "the state of the cluster")
            self._origin = str(cluster.connect(self._address))
        except (ClusterError, MissingExtraError) as error:
            self._problem = str(error)
            return False
        from sdk._figures import scrape
        from sdk._figures.recent import RecentCalls

        self._calls = RecentCalls(scrape.read_metrics)
        return True


class NoCluster:
    """No cluster, since the console was not given one for a server elsewhere."""

    def read(self) -> dict[str, Any]:
        """Return no state, and the remedy."""
        problem = "The server is on another machine: start the console with --address to see its Ray cluster."
        return {"cluster": "", "status": None, "calls": None, "problems": [problem]}

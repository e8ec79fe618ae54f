"""Metrics that only the controller knows: how far each proxy lags behind, and the replicas that have gone.

They reach Prometheus through Ray's exporter, as the metrics of replicas do (``sdk/_serve/call_metrics.py``).
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ray.util.metrics import Counter, Gauge

if TYPE_CHECKING:
    from sdk._ingress.registry import ProxyState


class ControllerMetrics:
    """Exports the metrics of the controller.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Node → the time since when its proxy has not had the newest routing table.
        self._behind_since: dict[str, float] = {}
        self._lags: set[str] = set()
        self._before: Counts[tuple[str, str, str]] = Counts()
        self._lag = Gauge(
            "sdk_ingress_table_lag_seconds",
            "Seconds since when the Envoy of a node has not acknowledged the newest routing table.",
            ("node_id",),
        )
        self._removed = Counter(
            "sdk_ingress_removed_replicas",
            "Replicas that are no longer routed to: they have left after a drain, or were lost without one.",
            ("application", "deployment", "reason"),
        )

    def export(self, version: int, proxies: Iterable[ProxyState], removed: Mapping[tuple[str, str, str], int]) -> None:
        """Export the state of the proxies, and the replicas that have gone since the last time.

        Args:
            version: Version of the newest routing table.
            proxies: The proxies.
            removed: Number of replicas that have gone, by application, deployment and reason.
        """
        now, seen = self._clock(), set()
        for proxy in proxies:
            node_id = proxy.node_id
            seen.add(node_id)
            if proxy.version >= version:
                self._behind_since.pop(node_id, None)
                lag = 0.0
            else:
                lag = now - self._behind_since.setdefault(node_id, now)
            self._lag.set(lag, {"node_id": node_id})
        for node_id in self._lags - seen:  # else the last value would stay
            self._behind_since.pop(node_id, None)
            self._lag.set(0.0, {"node_id": node_id})
        self._lags = seen
        for (application, deployment, reason), number in removed.items():
            if new := number - self._before[application, deployment, reason]:
                labels = {"application": application, "deployment": deployment, "reason": reason}
                self._removed.inc(new, labels)
        self._before = Counts(removed)

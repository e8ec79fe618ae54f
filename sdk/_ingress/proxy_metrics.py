"""Metrics of one proxy: its Envoy, its routing table, and the calls that no replica answered.

They reach Prometheus through Ray's exporter, as the metrics of replicas do (``sdk/_serve/call_metrics.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Counts
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.util.metrics import Counter, Gauge

from sdk._ingress.envoy.stats import fetch_certificate_expiry, fetch_stats
from sdk._wire.call_counts import STATUS_NAMES

if TYPE_CHECKING:
    from sdk._ingress.scale_to_zero.waiting_calls import Refusal
    from sdk._wire.server import WireServer

logger = logging.getLogger("sdk.ingress")

EXPORT_INTERVAL_S = 5.0
_NODE = ("node_id", "node_ip_address")

#: Metrics of Envoy: name, and what it counts.
ENVOY_COUNTERS = {
    "accepted_connections": "Connections that Envoy has accepted from clients.",
    "refused_connections": "Connections that Envoy has refused because too many were open.",
    "tls_handshakes": "TLS handshakes that have succeeded.",
    "tls_errors": "TLS handshakes that have failed.",
    "client_resets": "Calls that clients have reset: they cancelled, or were gone.",
    "resets": "Calls that Envoy has reset.",
    "retries": "Calls that Envoy has sent to another replica.",
    "failed_connects": "Connections to replicas that have failed.",
}
#: Calls that Envoy answers itself: the reason, and the status that the client gets.
ENVOY_REJECTIONS = {
    "no_healthy_replica": "UNAVAILABLE",
    "overflow": "RESOURCE_EXHAUSTED",
    "token": "UNAUTHENTICATED",
    "api_key": "UNAUTHENTICATED",
    "no_rule": "PERMISSION_DENIED",  # Envoy does not count calls without credentials separately
    "limit": "RESOURCE_EXHAUSTED",
    "memory": "RESOURCE_EXHAUSTED",
}


class ProxyMetrics:
    """Exports the metrics of one proxy.

    Args:
        node_id: Ray's id of the proxy's node.
        admin_socket: Path of the unix socket of Envoy's admin interface.
        version: Returns the version of the routing table that Envoy serves.
        has_tls: Whether Envoy has a certificate.
    """

    def __init__(self, node_id: str, admin_socket: Path, version: Callable[[], int], *, has_tls: bool = False) -> None:
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._node = {"node_id": node_id, "node_ip_address": address}
        self._admin_socket = admin_socket
        self._version, self._has_tls = version, has_tls
        self._before: Counts[str] = Counts()
        self._table_version = Gauge(
            "sdk_ingress_table_version", "Version of the routing table that the node's Envoy serves.", _NODE
        )
        self._connections = Gauge("sdk_ingress_connections", "Open connections of clients to the node's Envoy.", _NODE)
        self._envoy = {name: Counter(f"sdk_ingress_{name}", text, _NODE) for name, text in ENVOY_COUNTERS.items()}
        self._draining = Gauge(
            "sdk_ingress_draining",
            "1 while Ray drains the node, and the proxy reports NOT_SERVING; otherwise 0.",
            _NODE,
        )
        self._expiry = Gauge(
            "sdk_ingress_certificate_expiry_timestamp_seconds",
            "Time at which the first certificate that Envoy serves expires, in seconds since the epoch.",
            _NODE,
        )
        self._rejected = Counter(
            "sdk_ingress_rejected_requests",
            "Calls that no replica has answered, by the status that the client got and the reason.",
            (*_NODE, "status_code", "reason"),
        )
        self._requests = Counter(
            "sdk_ingress_builtin_requests",
            "Calls of the services that the proxy answers itself: health, reflection, RayServeAPIService.",
            (*_NODE, "method", "status_code"),
        )

    async def export_forever(
        self,
        builtin: Callable[[], WireServer | None],
        is_draining: Callable[[], bool],
        take_refused: Callable[[], Mapping[Refusal, int]] = dict,
    ) -> None:
        """Export every five seconds.

        Args:
            builtin: Returns the server of what the proxy answers itself, once it runs.
            is_draining: Returns whether the node is being drained.
            take_refused: Returns the number of calls that the gate has refused since the last time.
        """
        while True:
            await asyncio.sleep(EXPORT_INTERVAL_S)
            server = builtin()
            if server is not None:
                self.export_builtin(server)
            self.export_refused(take_refused())
            try:
                stats = await fetch_stats(self._admin_socket)
                expiry = await fetch_certificate_expiry(self._admin_socket) if self._has_tls else None
            except (OSError, TimeoutError) as error:  # Envoy is being restarted, or hangs: its supervisor reports it
                logger.debug("can't read Envoy's statistics: %s", error)
            else:
                self.export_envoy(stats)
                if expiry is not None:
                    self._expiry.set(expiry, self._node)
            self._draining.set(int(is_draining()), self._node)
            self._table_version.set(self._version(), self._node)

    def export_builtin(self, server: WireServer) -> None:
        """Export the calls that ended in the proxy since the last time.

        Args:
            server: The server of what the proxy answers itself.
        """
        for path, counted in server.take_counts():
            labels = {**self._node, "status_code": STATUS_NAMES[counted.status]}
            if path:
                self._requests.inc(counted.total, {**labels, "method": path})
            else:
                self._rejected.inc(counted.total, {**labels, "reason": "no_route"})

    def export_refused(self, refused: Mapping[Refusal, int]) -> None:
        """Export the calls that the gate has refused.

        Args:
            refused: Number of calls by reason and status.
        """
        for (reason, code), number in refused.items():
            self._rejected.inc(number, {**self._node, "reason": reason, "status_code": code.name})

    def export_envoy(self, stats: Mapping[str, int]) -> None:
        """Export Envoy's statistics.

        Args:
            stats: Values since Envoy's start, by our name.
        """
        self._connections.set(stats.get("connections", 0), self._node)
        for name, counter in self._envoy.items():
            if new := self._new(name, stats):
                counter.inc(new, self._node)
        for reason, status in ENVOY_REJECTIONS.items():
            if new := self._new(reason, stats):
                self._rejected.inc(new, {**self._node, "reason": reason, "status_code": status})
        self._before = Counts(stats)

    def _new(self, name: str, stats: Mapping[str, int]) -> int:
        value = stats.get(name, 0)
        return value - self._before[name] if value >= self._before[name] else value  # another Envoy counts from zero

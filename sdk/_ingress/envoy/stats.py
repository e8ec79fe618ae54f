"""Envoy's own statistics that an operator needs: connections, TLS, resets, retries, and what Envoy answers itself.

https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/stats
https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/stats
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from sdk._ingress.envoy.admin import admin_request
from sdk._xds.api_key_script import DENIED_STATISTIC

# The clusters of deployments: `application#deployment`. Others are the collector of logs, the proxy and the gate.
_DEPLOYMENT = r"cluster\..+#.+\."

#: The statistics by our name. Those of all listeners and of the clusters of all deployments are added up.
PATTERNS = {
    "connections": r"http\.grpc\.downstream_cx_active",
    "accepted_connections": r"http\.grpc\.downstream_cx_total",
    "refused_connections": r"listener\..+\.downstream_global_cx_overflow",
    "tls_handshakes": r"listener\..+\.ssl\.handshake",
    "tls_errors": r"listener\..+\.ssl\.(?:connection_error|fail_.+)",
    "client_resets": r"http\.grpc\.downstream_rq_rx_reset",
    "resets": r"http\.grpc\.downstream_rq_tx_reset",
    "retries": _DEPLOYMENT + "upstream_rq_retry",
    "failed_connects": _DEPLOYMENT + "upstream_cx_connect_fail",
    "no_healthy_replica": _DEPLOYMENT + "upstream_cx_none_healthy",
    "overflow": _DEPLOYMENT + "upstream_rq_pending_overflow",
    "token": r"http\.grpc\.jwt_authn\.denied",
    "api_key": rf"http\.grpc\.lua\.{DENIED_STATISTIC}",
    "no_rule": r"http\.grpc\.rbac\.denied",
    "memory": r"http\.grpc\.downstream_rq_overload_close",
    "limit": r"grpc\.http_local_rate_limit\.enforced",
}
_COMPILED = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}
_FILTER = quote("^(?:" + "|".join(PATTERNS.values()) + ")$", safe="")
_LINE = re.compile(r"^(\S+): (\d+)\r?$", re.MULTILINE)


def parse_stats(text: str) -> Counter[str]:
    r"""Return the statistics in a response of ``/stats``, by our name.

    Args:
        text: Lines with a name and a number.

    Example:
        >>> parse_stats("http.grpc.downstream_cx_total: 3\ncluster.a#B.upstream_rq_retry: 1")
        Counter({'accepted_connections': 3, 'retries': 1})
    """
    stats: Counter[str] = Counter()
    for found, value in _LINE.findall(text):
        for name, pattern in _COMPILED.items():
            if pattern.fullmatch(found):
                stats[name] += int(value)
    return stats


def parse_certificates(text: str) -> float | None:
    """Return the time at which the first of Envoy's own certificates expires, in seconds since the epoch.

    Args:
        text: A response of ``/certs``, in JSON.

    Returns:
        The time; None if Envoy has no certificates.

    Example:
        >>> parse_certificates('{"certificates": [{"cert_chain": [{"expiration_time": "2027-01-01T00:00:00Z"}]}]}')
        1798761600.0
    """
    chains = (each.get("cert_chain", ()) for each in json.loads(text).get("certificates", ()))
    times = (datetime.fromisoformat(each["expiration_time"]).timestamp() for chain in chains for each in chain)
    return min(times, default=None)


async def fetch_certificate_expiry(admin_socket: Path) -> float | None:
    """Return the time at which the first of Envoy's own certificates expires; None if it has none.

    Args:
        admin_socket: Path of the unix socket of Envoy's admin interface.

    Raises:
        OSError: Envoy does not listen there.
        TimeoutError: It does not answer within a second.
    """
    _, _, body = (await admin_request(admin_socket, "GET", "/certs")).partition("\r\n\r\n")
    return parse_certificates(body[body.index("{") : body.rindex("}") + 1])


async def fetch_stats(admin_socket: Path) -> Counter[str]:
    """Return Envoy's statistics, by our name.

    Args:
        admin_socket: Path of the unix socket of Envoy's admin interface.

    Raises:
        OSError: Envoy does not listen there.
        TimeoutError: It does not answer within a second.
    """
    return parse_stats(await admin_request(admin_socket, "GET", f"/stats?filter={_FILTER}"))

"""The Grafana dashboard: methods, statuses, the ingress and Envoy. Ray's own dashboards have applications and replicas.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_FILTER = 'application=~"$application"'
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2


@dataclass(frozen=True)
class _Panel:
    title: str
    query: str
    legend: str
    unit: str = "short"


def _rate(metric: str, labels: str = "") -> str:
    return f"rate(ray_{metric}{{{labels}}}[$__rate_interval])"


def _quantile(quantile: float) -> str:
    buckets = _rate("serve_grpc_request_latency_ms_bucket", _FILTER)
    return f"histogram_quantile({quantile}, sum by (method, le) ({buckets}))"


def _of_nodes(title: str, counter: str, unit: str) -> _Panel:
    return _Panel(title, f"sum by (node_id) ({_rate(f'sdk_ingress_{counter}_total')})", "{{node_id}}", unit)


_ROWS: dict[str, Sequence[_Panel]] = {
    "Calls": (
        _Panel(
            "Calls by method",
            f"sum by (method) ({_rate('serve_num_grpc_requests_total', _FILTER)})",
            "{{method}}",
            "reqps",
        ),
        _Panel(
            "Calls that fail, by method and status",
            f"sum by (method, error_code) ({_rate('serve_num_grpc_error_requests_total', _FILTER)})",
            "{{method}} {{error_code}}",
            "reqps",
        ),
        _Panel("Latency by method, median", _quantile(0.5), "{{method}}", "ms"),
        _Panel("Latency by method, 99th percentile", _quantile(0.99), "{{method}}", "ms"),
        _Panel(
            "Calls that fail, by deployment and status",
            f"sum by (deployment, error_code) ({_rate('serve_num_deployment_grpc_error_requests_total', _FILTER)})",
            "{{deployment}} {{error_code}}",
            "reqps",
        ),
        _Panel(
            "Calls that wait for a handler",
            f"sum by (deployment) (ray_sdk_replica_queued_grpc_requests{{{_FILTER}}})",
            "{{deployment}}",
        ),
        _Panel(
            "Time that calls wait for a handler, 99th percentile",
            f"histogram_quantile(0.99, sum by (deployment, le) ({_rate('sdk_replica_queue_wait_ms_bucket', _FILTER)}))",
            "{{deployment}}",
            "ms",
        ),
        _Panel(
            "Calls of clients and of deployments, by method",
            f"sum by (deployment, method, caller) ({_rate('sdk_replica_requests_total', _FILTER)})",
            "{{deployment}} {{method}} {{caller}}",
            "reqps",
        ),
        _Panel(
            "Calls that run and wait, by method",
            f"sum by (method, state) (ray_sdk_replica_current_requests{{{_FILTER}}})",
            "{{method}} {{state}}",
        ),
        _Panel(
            "Calls through handles that are sent again",
            f"sum by (deployment, reason) ({_rate('sdk_handle_retries_total', _FILTER)})",
            "{{deployment}} {{reason}}",
            "reqps",
        ),
        _Panel(
            "Calls that a deployment refuses",
            f"sum by (deployment, method, reason) ({_rate('sdk_replica_rejected_requests_total', _FILTER)})",
            "{{deployment}} {{method}} {{reason}}",
            "reqps",
        ),
        _Panel(
            "Calls by model",
            f"sum by (deployment, model) ({_rate('sdk_replica_model_requests_total', _FILTER)})",
            "{{deployment}} {{model}}",
            "reqps",
        ),
        _Panel(
            "Messages",
            f"sum by (method, direction) ({_rate('sdk_replica_messages_total', _FILTER)})",
            "{{method}} {{direction}}",
        ),
        _Panel(
            "Bytes of messages",
            f"sum by (method, direction) ({_rate('sdk_replica_message_bytes_total', _FILTER)})",
            "{{method}} {{direction}}",
            "Bps",
        ),
    ),
    "Ingress": (
        _Panel(
            "Calls that no replica has answered",
            f"sum by (reason, status_code) ({_rate('sdk_ingress_rejected_requests_total')})",
            "{{reason}} {{status_code}}",
            "reqps",
        ),
        _Panel(
            "Health checks, reflection and RayServeAPIService",
            f"sum by (method) ({_rate('sdk_ingress_builtin_requests_total')})",
            "{{method}}",
            "reqps",
        ),
        _Panel(
            "Time without the newest routing table",
            "max by (node_id) (ray_sdk_ingress_table_lag_seconds)",
            "{{node_id}}",
            "s",
        ),
        _Panel("Version of the routing table", "max by (node_id) (ray_sdk_ingress_table_version)", "{{node_id}}"),
        _Panel("Nodes that are drained", "max by (node_id) (ray_sdk_ingress_draining)", "{{node_id}}"),
        _Panel(
            "Replicas that have gone",
            f"sum by (application, deployment, reason) ({_rate('sdk_ingress_removed_replicas_total', _FILTER)})",
            "{{application}}/{{deployment}} {{reason}}",
        ),
        _Panel(
            "Time until a certificate expires",
            "min by (node_id) (ray_sdk_ingress_certificate_expiry_timestamp_seconds) - time()",
            "{{node_id}}",
            "s",
        ),
        _Panel("Open connections", "sum by (node_id) (ray_sdk_ingress_connections)", "{{node_id}}"),
    ),
    "Envoy": (
        _of_nodes("New connections", "accepted_connections", "cps"),
        _of_nodes("Refused connections", "refused_connections", "cps"),
        _of_nodes("TLS handshakes", "tls_handshakes", "cps"),
        _of_nodes("TLS handshakes that fail", "tls_errors", "cps"),
        _of_nodes("Calls that clients reset", "client_resets", "reqps"),
        _of_nodes("Calls that Envoy resets", "resets", "reqps"),
        _of_nodes("Calls sent to another replica", "retries", "reqps"),
        _of_nodes("Connections to replicas that fail", "failed_connects", "cps"),
    ),
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's JSON model.

    Example:
        >>> dashboard()["title"]
        'gRPC on Ray'
    """
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in _ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": _place(0, top, 24, 1)})
        top += 1
        for index, panel in enumerate(row):
            left = index % _COLUMNS * _WIDTH
            panels.append(_as_json(panel, len(panels) + 1, _place(left, top, _WIDTH, _HEIGHT)))
            top += _HEIGHT if left or index == len(row) - 1 else 0
    return {
        "title": "gRPC on Ray",
        "uid": "ray-grpc",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_data_source(), _application()]},
        "panels": panels,
    }


def _as_json(panel: _Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [{"refId": "A", "expr": panel.query, "legendFormat": panel.legend}],
    }


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _application() -> dict[str, Any]:
    return {
        "name": "application",
        "label": "Application",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "query": "label_values(ray_serve_num_grpc_requests_total, application)",
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
    }

"""Each alert fires at its fault, and no other one does; none fires at a calm service."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tests.serve.test_metrics_reference import REFERENCE, exported
from tests.support.prometheus_programs import prometheus_program

ALERTS = Path(str(files("sdk.cli.dashboards").joinpath("alerts.yml")))
# Minutes between two samples and two evaluations, as rare as the rates over five minutes allow.
STEP = 2


def series(name: str, **labels: str) -> str:
    """Return a series in Prometheus's notation."""
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"ray_{name}{{{pairs}}}"


def of_node(name: str, **labels: str) -> str:
    return series(f"sdk_ingress_{name}", node_id="n", **labels)


SHOP = {"application": "shop"}
TILL = {**SHOP, "deployment": "Till"}
PAY = {"method": "/shop.Till/Pay"}
REPLICA = {**TILL, "replica": "r1"}


def failed(code: str) -> str:
    return series("serve_num_grpc_error_requests_total", **SHOP, **PAY, error_code=code)


def failed_of_method(code: str, method: str = PAY["method"]) -> str:
    return series("serve_num_deployment_grpc_error_requests_total", **TILL, method=method, error_code=code)


def failed_of_deployment(code: str) -> str:
    return series("serve_deployment_error_counter_total", **REPLICA, exception_type=code)


def current(state: str) -> str:
    return series("sdk_replica_current_requests", **TILL, **PAY, state=state)


def removed(reason: str) -> str:
    return series("sdk_ingress_removed_replicas_total", **TILL, reason=reason)


def retried(reason: str) -> str:
    return series("sdk_handle_retries_total", **TILL, reason=reason)


def refused(reason: str) -> str:
    return series("sdk_replica_rejected_requests_total", **TILL, **PAY, status_code="UNKNOWN", reason=reason)


def of_model(model: str) -> str:
    return series("sdk_replica_model_requests_total", **REPLICA, model=model)


def rejected(reason: str, status_code: str) -> str:
    return of_node("rejected_requests_total", reason=reason, status_code=status_code)


def health(status_code: str) -> str:
    return of_node("builtin_requests_total", method="/grpc.health.v1.Health/Check", status_code=status_code)


def rate(per_second: float) -> str:
    """Return the values of a counter."""
    return f"0+{per_second * 60 * STEP:.0f}x50"


def constant(value: float) -> str:
    return f"{value}x50"


def histogram(name: str, labels: dict[str, str], milliseconds: int) -> dict[str, str]:
    """Return a histogram of values that are all between a tenth of a duration and it."""
    bounds = {str(milliseconds // 10): 0, str(milliseconds): 100, "+Inf": 100}
    return {series(f"{name}_bucket", **labels, le=bound): rate(number) for bound, number in bounds.items()}


def slower(name: str, labels: dict[str, str]) -> dict[str, str | None]:
    return {**dict.fromkeys(histogram(name, labels, 500)), **histogram(name, labels, 5000)}


LATENCY, PROCESSING = "serve_grpc_request_latency_ms", "serve_deployment_processing_latency_ms"
ONGOING = series("serve_num_ongoing_grpc_requests", node_id="n")
BYTES = series("sdk_replica_message_bytes_total", **TILL, **PAY, direction="sent")
QUEUED_OF_SERVE = series("serve_deployment_queued_queries", **TILL, handle="grpc")
PROCESSED = series(f"{PROCESSING}_count", **REPLICA)
LAG, EXPIRY = of_node("table_lag_seconds"), of_node("certificate_expiry_timestamp_seconds")

#: A service without a fault, with failures of its callers.
CALM: dict[str, str] = {
    series("serve_num_grpc_requests_total", **SHOP, **PAY, status_code="OK"): rate(100),
    failed("NOT_FOUND"): rate(50),
    failed("INTERNAL"): rate(1),
    **histogram(LATENCY, {**SHOP, **PAY}, 500),
    series("sdk_replica_requests_total", **TILL, **PAY, status_code="OK", caller="client"): rate(100),
    failed_of_method("INTERNAL"): rate(1),
    # Of a client that looks for methods.
    failed_of_method("UNIMPLEMENTED", "_OTHER"): rate(1),
    series("sdk_replica_requests_total", **TILL, method="_OTHER", status_code="UNIMPLEMENTED", caller="client"): rate(
        1
    ),
    series("serve_deployment_request_counter_total", **REPLICA): rate(100),
    failed_of_deployment("NOT_FOUND"): rate(90),
    **histogram(PROCESSING, REPLICA, 500),
    PROCESSED: rate(100),
    ONGOING: constant(100),
    series("sdk_replica_messages_total", **TILL, **PAY, direction="sent"): rate(100),
    BYTES: rate(100_000),
    QUEUED_OF_SERVE: constant(5),
    current("queued"): constant(5),
    current("ongoing"): constant(5),
    series("sdk_replica_queued_grpc_requests", **REPLICA): constant(5),
    of_model("m1"): rate(10),
    retried("refused"): rate(1),
    refused("no_rule"): rate(0.5),
    rejected("no_route", "NOT_FOUND"): rate(5),
    rejected("token", "UNAUTHENTICATED"): rate(0.5),
    rejected("draining", "UNAVAILABLE"): rate(1),
    health("OK"): rate(1),
    of_node("table_version"): constant(7),
    LAG: constant(0),
    of_node("draining"): constant(0),
    EXPIRY: constant(60 * 86400),
    of_node("tls_handshakes_total"): rate(50),
    of_node("tls_errors_total"): rate(2),
    of_node("connections"): constant(100),
    of_node("accepted_connections_total"): rate(5),
    of_node("client_resets_total"): rate(5),
    of_node("resets_total"): rate(0),
    of_node("retries_total"): rate(0),
    of_node("failed_connects_total"): rate(0),
    of_node("refused_connections_total"): rate(0),
    removed("left"): rate(1),
}
#: What differs from the calm service where an alert fires; None for a series that is missing.
FAULTS: dict[str, dict[str, str | None]] = {
    "GrpcErrorRatioHigh": {failed("INTERNAL"): rate(10)},
    "GrpcLatencyHigh": slower(LATENCY, {**SHOP, **PAY}),
    "GrpcMethodFails": {failed_of_method("UNAVAILABLE"): rate(60)},
    "GrpcCallsPileUp": {ONGOING: constant(1001)},
    "GrpcMessagesLarge": {BYTES: rate(500_000_000)},
    "GrpcClientsLeave": {of_node("client_resets_total"): rate(30)},
    "GrpcDeploymentErrorRatioHigh": {failed_of_deployment("INTERNAL"): rate(60)},
    "GrpcDeploymentLatencyHigh": slower(PROCESSING, REPLICA),
    "GrpcQueueLong": {QUEUED_OF_SERVE: constant(101)},
    "GrpcQueueWaitLong": slower("sdk_replica_queue_wait_ms", REPLICA),
    "GrpcMethodStarves": {current("ongoing"): constant(0)},
    "GrpcReplicaStuck": {PROCESSED: rate(0)},
    "GrpcManyModels": {of_model("_OTHER"): rate(1)},
    "GrpcReplicaRefuses": {refused("overflow"): rate(2)},
    "GrpcHandleCallsLost": {retried("lost"): rate(1)},
    "GrpcNoReplica": {rejected("no_replica", "UNAVAILABLE"): rate(1)},
    "GrpcCallsRefused": {rejected("api_key", "UNAUTHENTICATED"): rate(2)},
    "GrpcHealthChecksFail": {health("NOT_FOUND"): rate(1)},
    "GrpcProxyLagsBehind": {LAG: constant(61)},
    "GrpcControllerGone": {LAG: None},
    "GrpcDrainHangs": {of_node("draining"): constant(1)},
    "GrpcReplicasLost": {removed("lost"): rate(1 / 60)},
    "GrpcCertificateExpires": {EXPIRY: constant(10 * 86400)},
    "GrpcTlsHandshakesFail": {of_node("tls_errors_total"): rate(10)},
    "GrpcConnectionsRefused": {of_node("refused_connections_total"): rate(1)},
    "GrpcConnectionsMany": {of_node("connections"): constant(10_001)},
    "GrpcConnectionsShort": {of_node("accepted_connections_total"): rate(101)},
    "GrpcReplicasUnreachable": {of_node("failed_connects_total"): rate(2)},
    "GrpcCallsSentAgain": {of_node("retries_total"): rate(2)},
    "GrpcCallsReset": {of_node("resets_total"): rate(2)},
}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def metrics_of(rule: dict[str, Any]) -> set[str]:
    return {re.sub("^ray_|_(total|bucket|count)$", "", name) for name in re.findall(r"\bray_\w+", rule["expr"])}


def scenarios() -> Iterator[dict[str, Any]]:
    """Yield what promtool checks, for each alert and for the calm service."""
    for alert, fault in {"": {}, **FAULTS}.items():
        found = {**CALM, **fault}
        minutes = 70 if alert == "GrpcDrainHangs" else 20  # the longest `for` of the others is ten
        yield {
            "name": alert or "calm",
            "interval": f"{STEP}m",
            "input_series": [{"series": name, "values": values} for name, values in found.items() if values],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{minutes}m",
                    "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else [],
                }
            ],
        }


def test_each_alert_fires_at_its_fault_alone(tmp_path: Path) -> None:
    assert [rule["alert"] for rule in rules()] == list(FAULTS)
    tests = tmp_path / "tests.yml"
    tests.write_text(
        json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": f"{STEP}m", "tests": list(scenarios())})
    )
    done = subprocess.run(
        [prometheus_program("promtool"), "test", "rules", tests], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_names_an_alert_for_each_metric() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", REFERENCE, re.MULTILINE))
    using = {rule["alert"]: metrics_of(rule) for rule in rules()}
    assert {name: name in using[alert] for name, alert in rows.items() if name in exported()} == dict.fromkeys(
        exported(), True
    )


def test_the_reference_lists_each_alert() -> None:
    listed = re.findall(r"^\| `(Grpc\w+)` \|", REFERENCE, re.MULTILINE)
    assert listed == [rule["alert"] for rule in rules()]

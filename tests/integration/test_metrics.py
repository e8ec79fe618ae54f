"""Ray's exporter shows calls as it shows those of Ray Serve's own proxies, and Ray's dashboards find them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
import ray
from click.testing import CliRunner
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from ray.dashboard.modules.metrics.dashboards.common import Panel
from ray.dashboard.modules.metrics.dashboards.serve_dashboard_panels import serve_dashboard_config
from ray.dashboard.modules.metrics.dashboards.serve_deployment_dashboard_panels import serve_deployment_dashboard_config
from user_defined_protos_pb2 import UserDefinedMessage as Message
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from sdk._replica_protocol import INGRESS_STATE_PATH
from sdk.cli.dashboards.command import ALERTS, dashboards
from sdk.cli.dashboards.grafana import dashboard
from tests.integration import typed_handle_apps
from tests.integration.prometheus import Prometheus
from tests.integration.scraping import Samples, metrics_of, scrape_until, total
from tests.serve.test_metrics_reference import exported
from tests.support.loops import PATIENCE_S
from tests.web.http_client import ask_at

APPLICATION = "counted"
METADATA = (("application", APPLICATION), ("multiplexed_model_id", "m1"))
SERVICE = "/userdefinedprotos.UserDefinedService"
CALL = f"{SERVICE}/__call__"
OK, NOT_FOUND = "OK", "NOT_FOUND"
#: The calls that reach no replica.
NO_ROUTE = {"status_code": NOT_FOUND, "reason": "no_route"}
HEALTH = {"method": "/grpc.health.v1.Health/Check", "status_code": OK}
#: The stream, and the one that it makes.
STREAMS = (
    {"application": APPLICATION, "deployment": "Outer", "method": f"{SERVICE}/Streaming"},
    {"application": APPLICATION, "deployment": "Inner", "method": "/probe.AsyncProbe/Down"},
)


def call_and_fail(stub: UserDefinedServiceStub) -> None:
    """Make three good calls, and two that fail."""
    for _ in range(3):
        stub.__call__(Message(name="seen"), metadata=METADATA, timeout=30)
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            stub.__call__(Message(name="fail"), metadata=METADATA, timeout=30)


@pytest.fixture(scope="module")
def samples(deploy: Any, ingress: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samples]:
    """Samples after three good calls and two that fail, which each make a call, and two that reach no replica.

    A stream that makes a stream is open until the end; two messages have come.
    """
    inner = typed_handle_apps.Inner.bind(str(tmp_path_factory.mktemp("notes")))
    # Its replica dies at the end (`cut_a_stream`): Ray Serve need not start another one by then.
    deploy(typed_handle_apps.Outer.options(max_queued_requests=1, health_check_period_s=30).bind(inner), APPLICATION)
    ask_at(ingress.address, INGRESS_STATE_PATH, None)  # the first of the two readings that its figures need
    with grpc.insecure_channel(ingress.address) as channel:
        stub = UserDefinedServiceStub(channel)
        call_and_fail(stub)
        with pytest.raises(grpc.RpcError):
            stub.__call__(Message(), metadata=(("application", "no such application"),), timeout=30)
        HealthStub(channel).Check(HealthCheckRequest(), timeout=30)
        stream = stub.Streaming(Message(name="wait open", num=2), metadata=METADATA, timeout=300)
        assert [next(stream).num for _ in range(2)] == [0, 1]
        yield scrape_until(
            lambda found: (
                total(found, "ray_serve_num_grpc_requests_total", application=APPLICATION) >= 5
                and total(found, "ray_serve_deployment_request_counter_total", application=APPLICATION) >= 6
                and total(found, "ray_serve_deployment_error_counter_total", application=APPLICATION) >= 4
                and all(
                    total(found, "ray_sdk_replica_messages_total", **labels, direction="sent") >= 2
                    for labels in STREAMS
                )
                and total(found, "ray_serve_replica_processing_queries", application=APPLICATION) >= 2
                and total(found, "ray_sdk_ingress_rejected_requests_total", **NO_ROUTE) >= 1
                and total(found, "ray_sdk_ingress_builtin_requests_total", **HEALTH) >= 1
                and total(found, "ray_sdk_ingress_table_version") >= 1
            )
        )
        stream.cancel()


def test_requests_by_method_and_status(samples: Samples) -> None:
    labels = {"application": APPLICATION, "route": APPLICATION, "method": CALL}
    assert total(samples, "ray_serve_num_grpc_requests_total", **labels, status_code=OK) == 3
    assert total(samples, "ray_serve_num_grpc_requests_total", **labels, status_code=NOT_FOUND) == 2
    assert total(samples, "ray_serve_num_grpc_error_requests_total", **labels, error_code=NOT_FOUND) == 2
    assert total(samples, "ray_serve_grpc_request_latency_ms_count", **labels, status_code=OK) == 3


def test_calls_between_deployments_are_not_requests_but_count_for_the_deployment(samples: Samples) -> None:
    labels = {"application": APPLICATION, "deployment": "Inner"}
    assert total(samples, "ray_serve_num_grpc_requests_total", application=APPLICATION) == 5
    assert total(samples, "ray_serve_deployment_request_counter_total", **labels) == 3
    assert total(samples, "ray_serve_deployment_error_counter_total", **labels, exception_type=NOT_FOUND) == 2
    assert total(samples, "ray_serve_deployment_processing_latency_ms_count", **labels) == 5
    assert total(samples, "ray_serve_num_deployment_grpc_error_requests_total", **labels, error_code=NOT_FOUND) == 2


def test_calls_in_progress_are_in_ray_serves_own_gauge_too(samples: Samples) -> None:
    for deployment in ("Inner", "Outer"):
        labels = {"application": APPLICATION, "deployment": deployment}
        assert total(samples, "ray_serve_replica_processing_queries", **labels) == 1


def test_each_call_of_a_deployment_by_method_status_and_caller(samples: Samples) -> None:
    for deployment, method, caller in ("Outer", CALL, "client"), ("Inner", "/probe.AsyncProbe/Unary", "deployment"):
        labels = {"application": APPLICATION, "deployment": deployment, "method": method, "caller": caller}
        assert total(samples, "ray_sdk_replica_requests_total", **labels, status_code=OK) == 3
        assert total(samples, "ray_sdk_replica_requests_total", **labels, status_code=NOT_FOUND) == 2


def test_calls_that_run_by_method(samples: Samples) -> None:
    current = {"application": APPLICATION, "method": f"{SERVICE}/Streaming", "state": "ongoing"}
    assert total(samples, "ray_sdk_replica_current_requests", **current) == 1


def test_messages_of_streams(samples: Samples) -> None:
    for labels in STREAMS:
        assert total(samples, "ray_sdk_replica_messages_total", **labels, direction="sent") == 2
        assert total(samples, "ray_sdk_replica_message_bytes_total", **labels, direction="sent") > 2


def test_calls_in_progress_by_node(samples: Samples) -> None:
    labels = [labels for name, labels, _ in samples if name == "ray_serve_num_ongoing_grpc_requests"]
    assert labels
    assert all(label["node_id"] and label["node_ip_address"] for label in labels)


def test_calls_that_no_replica_answered(samples: Samples) -> None:
    assert total(samples, "ray_sdk_ingress_rejected_requests_total", **NO_ROUTE) >= 1
    assert total(samples, "ray_sdk_ingress_builtin_requests_total", **HEALTH) >= 1


def test_the_ingress_of_each_node(samples: Samples) -> None:
    (node,) = {labels["node_id"] for name, labels, _ in samples if name == "ray_sdk_ingress_table_version"}
    assert node
    assert total(samples, "ray_sdk_ingress_accepted_connections_total", node_id=node) >= 1
    assert total(samples, "ray_sdk_ingress_connections", node_id=node) >= 0
    assert [value for name, _, value in samples if name == "ray_sdk_ingress_draining"] == [0]
    assert {labels["node_id"] for name, labels, _ in samples if name == "ray_sdk_ingress_table_lag_seconds"} == {node}


def test_sdk_top_reads_what_ray_exports(samples: Samples) -> None:
    from sdk._figures.figures import Reading, measure
    from sdk._figures.scrape import read_metrics

    now = read_metrics()
    figures = measure(Reading(now.at - 10, {}, now.nodes), now)
    (method,) = (each for each in figures.methods if (each.application, each.method) == (APPLICATION, CALL))
    assert method.calls_per_s == pytest.approx(0.5)
    assert method.errors_per_s == {NOT_FOUND: pytest.approx(0.2)}
    assert method.p50_ms is not None
    (stream,) = (
        each for each in figures.methods if (each.application, each.method) == (APPLICATION, f"{SERVICE}/Streaming")
    )
    assert (stream.ongoing, stream.queued) == (1, 0)
    replicas = [each for each in figures.replicas if each.application == APPLICATION]
    assert {each.deployment: (each.ongoing, each.queued) for each in replicas} == {"Inner": (1, 0), "Outer": (1, 0)}
    assert any(each.reason == "no_route" and each.status_code == NOT_FOUND for each in figures.rejected)


def test_the_console_of_the_ingress_has_the_calls_of_the_cluster(samples: Samples, ingress: Any) -> None:
    until = time.monotonic() + PATIENCE_S
    while (state := ask_at(ingress.address, INGRESS_STATE_PATH, None).json)["calls"] is None:
        assert state["problems"] == []
        assert time.monotonic() < until
        time.sleep(0.1)
    running = {each["method"]: each["ongoing"] for each in state["calls"]["methods"]}
    assert running[f"{SERVICE}/Streaming"] == 1
    replicas = {each["deployment"] for each in state["calls"]["replicas"] if each["application"] == APPLICATION}
    assert replicas == {"Inner", "Outer"}


#: Metrics that this cluster can't move: it has no TLS, and the others need a replica whose end nobody has noticed, or
#: more connections than files. tests/ingress/envoy/test_stats.py moves them in a real Envoy; here a server exports them
#: as they are defined, so that the panels show them.
NOT_MOVED = (
    "sdk_ingress_certificate_expiry_timestamp_seconds",
    "sdk_ingress_failed_connects",
    "sdk_ingress_refused_connections",
    "sdk_ingress_retries",
    "sdk_ingress_tls_errors",
    "sdk_ingress_tls_handshakes",
)


def write_not_moved() -> str:
    """Return these metrics in Prometheus's format; none of them is a reason for an alert."""
    lines = []
    for name in NOT_MOVED:
        metric = exported()[name]
        labels = dict.fromkeys(metric.labels, "x") | {"application": APPLICATION}
        text = ",".join(f'{label}="{labels[label]}"' for label in metric.labels)
        suffix, value = ("_total", 1.0) if metric.kind == "counter" else ("", time.time() + 60 * 86400)
        lines.append(f"ray_{name}{suffix}{{{text}}} {value}\n")
    return "".join(lines)


class NotMoved(BaseHTTPRequestHandler):
    """Exports the metrics that this cluster can't move."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(write_not_moved().encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def not_moved() -> Iterator[str]:
    """The address of their exporter."""
    with ThreadingHTTPServer(("127.0.0.1", 0), NotMoved) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def leave_and_kill(stub: UserDefinedServiceStub) -> None:
    """Let a call wait for one of `Outer`'s 20 handlers, leave those that have them, and kill the replica of `Inner`.

    One call may wait, so that the next is refused. The call that kills the replica is sent again.
    """
    running = [stub.Streaming(Message(name="wait open", num=1), metadata=METADATA, timeout=300) for _ in range(19)]
    assert [next(call).num for call in running] == [0] * 19
    waiting = stub.__call__.future(Message(name="waited"), metadata=METADATA, timeout=120)
    scrape_until(lambda found: total(found, "ray_sdk_replica_queued_grpc_requests", application=APPLICATION) == 1)
    with pytest.raises(grpc.RpcError) as error:
        stub.__call__(Message(name="too many"), metadata=METADATA, timeout=60)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    for call in running:
        call.cancel()
    assert waiting.result().greeting == "waited"
    again = stub.__call__(Message(name="once", origin="again"), metadata=METADATA, timeout=120)
    assert again.greeting == "once"


def cut_a_stream(stub: UserDefinedServiceStub) -> None:
    """Let the replica of `Outer` die after its first message, so early that Envoy can only reset the stream."""
    for _ in range(5):  # on a busy machine, five milliseconds may have passed by then
        stream = stub.Streaming(Message(origin="dies young"), metadata=METADATA, timeout=120)
        with pytest.raises(grpc.RpcError) as error:
            list(stream)
        if "RST_STREAM" in str(error.value):
            return
    raise AssertionError(f"no stream was reset: {error.value}")


@pytest.fixture(scope="module")
def prometheus(
    samples: Samples, ingress: Any, not_moved: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus with our rules, after it has seen calls and failures arrive."""
    folder = tmp_path_factory.mktemp("prometheus")
    assert CliRunner().invoke(dashboards, ["--out", str(folder)]).exit_code == 0
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    targets = (f"127.0.0.1:{node['MetricsExportPort']}", not_moved)
    with Prometheus.start(folder, targets, folder / ALERTS) as running:
        with grpc.insecure_channel(ingress.address) as channel:
            stub = UserDefinedServiceStub(channel)
            call_and_fail(stub)
            leave_and_kill(stub)
        labels = f'{{application="{APPLICATION}"}}'
        for counter in ("serve_num_grpc_error_requests_total", "serve_deployment_error_counter_total"):
            running.wait_for(f"sum(rate(ray_{counter}{labels}[5m])) > 0")
        for histogram in ("serve_grpc_request_latency_ms_count", "serve_deployment_processing_latency_ms_count"):
            running.wait_for(f"sum(rate(ray_{histogram}{labels}[5m])) > 0")
        for name in (
            f"ingress_removed_replicas_total{labels}",
            f"replica_queue_wait_ms_count{labels}",
            f'replica_rejected_requests_total{{application="{APPLICATION}", reason="overflow"}}',
            f'handle_retries_total{{application="{APPLICATION}", deployment="Inner", reason="lost"}}',
            "ingress_client_resets_total",
        ):
            running.wait_for(f"rate(ray_sdk_{name}[5m])")  # of two samples, the first of which is not zero
        with grpc.insecure_channel(ingress.address) as channel:
            cut_a_stream(UserDefinedServiceStub(channel))
        running.wait_for("rate(ray_sdk_ingress_resets_total[5m])")
        yield running


def test_a_real_prometheus_finds_data_for_each_panel(prometheus: Prometheus) -> None:
    panels = [panel for panel in dashboard()["panels"] if panel["type"] == "timeseries"]
    for panel in panels:
        query = panel["targets"][0]["expr"].replace("$__rate_interval", "5m").replace("$application", APPLICATION)
        assert prometheus.query(query), f"{panel['title']}: {query}"


def queries_of(panel: Panel) -> list[str]:
    """Return the queries of a panel of Ray that ask for our metrics, as Grafana sends them.

    The dashboard's variables select all applications, routes and methods.
    """
    ours = {f"ray_{name}" for name in exported()} | {"ray_serve_replica_processing_queries"}
    return [
        re.sub(r"\$\w+", ".*", target.expr.format(global_filters=""))
        for target in panel.targets
        if any(re.sub("_(total|bucket)$", "", name) in ours for name in metrics_of(target.expr))
        or "(http|grpc)" in target.expr
    ]


#: Panels of Ray's dashboards with such a query.
PANELS = [
    panel
    for config in (serve_dashboard_config, serve_deployment_dashboard_config)
    for panel in [*config.panels, *(panel for row in config.rows or () for panel in row.panels)]
    if queries_of(panel)
]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.id} {panel.title}")
def test_the_panels_of_rays_dashboards_have_data(prometheus: Prometheus, panel: Panel) -> None:
    for query in queries_of(panel):
        values = [series["value"][1] for series in prometheus.query(query)]
        assert [value for value in values if value != "NaN"], f"{query}: {values}"


def test_the_alerts_in_a_real_prometheus(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]
    assert len(rules) == 30
    # 2 of 5 calls end NOT_FOUND, which is the caller's fault; nothing else that pages.
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []

"""Ray's exporter shows calls as it shows those of Ray Serve's own proxies, and Ray's dashboards find them."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from ray.dashboard.modules.metrics.dashboards.common import Panel
from ray.dashboard.modules.metrics.dashboards.serve_dashboard_panels import serve_dashboard_config
from ray.dashboard.modules.metrics.dashboards.serve_deployment_dashboard_panels import serve_deployment_dashboard_config
from user_defined_protos_pb2 import UserDefinedMessage as Message
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from tests.integration import typed_handle_apps
from tests.integration.scraping import Samples, metrics_of, scrape_until, total

APPLICATION = "counted"
METADATA = (("application", APPLICATION),)
CALL = "/userdefinedprotos.UserDefinedService/__call__"
OK, NOT_FOUND = "OK", "NOT_FOUND"
# Requests that wait in a Ray handle: calls to an application wait in its replicas.
OF_RAY_HANDLES = {"ray_serve_deployment_queued_queries"}


@pytest.fixture(scope="module")
def samples(deploy: Any, ingress: Any, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Samples after three good calls and two that fail, which each make a call, and two that reach no replica."""
    deploy(typed_handle_apps.composed(str(tmp_path_factory.mktemp("notes"))), APPLICATION)
    with grpc.insecure_channel(ingress.address) as channel:
        stub = UserDefinedServiceStub(channel)
        for _ in range(3):
            stub.__call__(Message(name="seen"), metadata=METADATA, timeout=30)
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                stub.__call__(Message(name="fail"), metadata=METADATA, timeout=30)
        with pytest.raises(grpc.RpcError):
            stub.__call__(Message(), metadata=(("application", "no such application"),), timeout=30)
        HealthStub(channel).Check(HealthCheckRequest(), timeout=30)
    return scrape_until(
        lambda found: (
            total(found, "ray_serve_num_grpc_requests_total", application=APPLICATION) >= 5
            and total(found, "ray_serve_deployment_request_counter_total", application=APPLICATION) >= 6
            and total(found, "ray_serve_deployment_error_counter_total", application=APPLICATION) >= 4
            and total(found, "ray_sdk_ingress_rejected_requests_total") >= 1
            and total(found, "ray_sdk_ingress_table_version") >= 1
        )
    )


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


#: Panels of Ray's dashboards about requests of clients and of deployments.
PANELS = [
    panel
    for config in (serve_dashboard_config, serve_deployment_dashboard_config)
    for panel in [*config.panels, *(panel for row in config.rows or () for panel in row.panels)]
    if any(
        "grpc" in metric or "deployment_" in metric for target in panel.targets for metric in metrics_of(target.expr)
    )
]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.id} {panel.title}")
def test_the_panels_of_rays_dashboards_have_data(samples: Samples, panel: Panel) -> None:
    """Each panel names metrics that Ray exports, for our application where it has one."""
    wanted = {metric for target in panel.targets for metric in metrics_of(target.expr) if "_http_" not in metric}

    def missing(samples: Samples) -> set[str]:
        found = {name for name, labels, _ in samples if labels.get("application", APPLICATION) == APPLICATION}
        return wanted - found - OF_RAY_HANDLES

    if missing(samples):  # what Ray Serve itself exports may come later
        scrape_until(lambda found: not missing(found))


def test_calls_in_progress_by_node(samples: Samples) -> None:
    labels = [labels for name, labels, _ in samples if name == "ray_serve_num_ongoing_grpc_requests"]
    assert labels
    assert all(label["node_id"] and label["node_ip_address"] for label in labels)


def test_calls_that_no_replica_answered(samples: Samples) -> None:
    rejected = "ray_sdk_ingress_rejected_requests_total"
    assert total(samples, rejected, status_code=NOT_FOUND, reason="no_route") >= 1
    health = {"method": "/grpc.health.v1.Health/Check", "status_code": OK}
    assert total(samples, "ray_sdk_ingress_builtin_requests_total", **health) >= 1


def test_the_ingress_of_each_node(samples: Samples) -> None:
    (node,) = {labels["node_id"] for name, labels, _ in samples if name == "ray_sdk_ingress_table_version"}
    assert node
    assert total(samples, "ray_sdk_ingress_accepted_connections_total", node_id=node) >= 1
    assert total(samples, "ray_sdk_ingress_connections", node_id=node) >= 0


def test_sdk_top_reads_what_ray_exports(samples: Samples) -> None:
    from sdk.cli.top.figures import Reading, measure
    from sdk.cli.top.scrape import read_metrics

    now = read_metrics()
    figures = measure(Reading(now.at - 10, {}, now.nodes), now)
    (method,) = (each for each in figures.methods if (each.application, each.method) == (APPLICATION, CALL))
    assert method.calls_per_s == pytest.approx(0.5)
    assert method.errors_per_s == {NOT_FOUND: pytest.approx(0.2)}
    assert method.p50_ms is not None
    replicas = [each for each in figures.replicas if each.application == APPLICATION]
    assert {each.deployment for each in replicas} >= {"Inner"}
    assert all((each.ongoing, each.queued) == (0, 0) for each in replicas), replicas
    assert any(each.reason == "no_route" and each.status_code == NOT_FOUND for each in figures.rejected)

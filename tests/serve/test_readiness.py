from __future__ import annotations

import pytest

from sdk._serve.readiness import pending_routes, wait_until_routed
from sdk._serving_status import ApplicationStatus, DeploymentStatus, ProxyStatus, Status
from sdk.errors import IngressError


def status(
    endpoints: int = 2, *, up_to_date: bool = True, problem: str = "", services: tuple[str, ...] = ("t.T",)
) -> Status:
    routed = tuple(f"127.0.0.1:{port}" for port in range(endpoints))
    deployment = DeploymentStatus("D", "HEALTHY", services, 2, routed)
    proxy = ProxyStatus("n", "127.0.0.1:9000", up_to_date, 1, problem)
    return Status((ApplicationStatus("app", "RUNNING", (deployment,)),), (proxy,))


def test_routed_when_every_replica_is_and_every_proxy_is_up_to_date() -> None:
    assert pending_routes(status(), "app") == ""
    assert pending_routes(status(1), "app") == "1 of 2 replicas of 'D' are routed to"
    assert pending_routes(status(3), "app") == "3 of 2 replicas of 'D' are routed to", "an old one, too"
    assert pending_routes(status(up_to_date=False), "app") == "waiting for the proxy at 127.0.0.1:9000"
    assert pending_routes(status(up_to_date=False, problem="no Envoy"), "app") == "waiting for no Envoy"


def test_other_applications_and_deployments_behind_handles_do_not_count() -> None:
    assert pending_routes(status(1), "other") == ""
    assert pending_routes(status(0, services=()), "app") == ""


def test_it_waits_until_routed_and_names_what_is_missing() -> None:
    looks = iter([status(1), status(3), status()])
    wait_until_routed("app", lambda: next(looks))
    with pytest.raises(IngressError, match=r"'app' runs, but is not routed to after 0 s: 1 of 2 replicas"):
        wait_until_routed("app", lambda: status(1), timeout_s=0)

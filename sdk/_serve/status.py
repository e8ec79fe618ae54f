"""Combines the status of applications, deployments and proxies from Ray Serve and the ingress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ray.serve.schema import ReplicaState  # type: ignore[attr-defined]  # it uses it without a re-export

from sdk._ingress.envoy.listening import format_address
from sdk._serving_status import ApplicationStatus, DeploymentStatus, ProxyStatus

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

    from sdk._ingress.controller import IngressStatus


def combine(
    serving: Mapping[str, ApplicationStatusOverview], ingress: IngressStatus | None
) -> tuple[tuple[ApplicationStatus, ...], tuple[ProxyStatus, ...]]:
    """Return the state of the applications and of the proxies.

    Args:
        serving: Ray Serve's status of each application, by name.
        ingress: The ingress controller's status; None when the ingress does not run.
    """
    routed_deployments = {
        (application.name, deployment.name): deployment
        for application in (ingress.snapshot.applications if ingress else ())
        for deployment in application.deployments
    }
    applications = []
    for name, overview in sorted(serving.items()):
        deployments = []
        for deployment_name, deployment in sorted(overview.deployments.items()):
            routed = routed_deployments.get((name, deployment_name))
            deployments.append(
                DeploymentStatus(
                    deployment_name,
                    deployment.status.value,
                    routed.services if routed else (),
                    deployment.replica_states.get(ReplicaState.RUNNING, 0),
                    tuple(format_address(each.host, each.port) for each in routed.endpoints) if routed else (),
                    deployment.message,
                    routed is not None and routed.scales_to_zero and routed.holds_calls,
                )
            )
        applications.append(ApplicationStatus(name, overview.status.value, tuple(deployments), overview.message))
    if ingress is None:
        return tuple(applications), ()
    proxies = tuple(
        ProxyStatus(
            p.node_id,
            p.address,
            p.version == ingress.snapshot.version,
            p.envoy_pid,
            "; ".join(filter(None, [p.problem, *map(str, p.rejected_applications)])),
            p.version,
        )
        for p in ingress.proxies
    )
    return tuple(applications), proxies

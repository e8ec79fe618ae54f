"""The state of everything that runs: Ray Serve's view of it, beside what the ingress routes to. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray.serve.schema import ApplicationStatus as ServeState
from ray.serve.schema import ReplicaState  # type: ignore[attr-defined]  # where Ray Serve's own status has it from

from sdk._ingress.envoy.listening import format_address

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

    from sdk._ingress.controller import IngressStatus


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment: its state in Ray Serve, and what of it the ingress routes to.

    Attributes:
        name: Its name.
        state: Ray Serve's word for its state, ``"HEALTHY"``.
        services: Full names of the proto services that it answers; empty when it is reached by handles only.
        replicas: Replicas that Ray Serve counts as running.
        endpoints: Addresses of the replicas that the ingress routes to.
        wakes: Whether it has no replica now and starts one when a call comes.
        message: Ray Serve's message, when there is one.
    """

    name: str
    state: str
    services: tuple[str, ...]
    replicas: int
    endpoints: tuple[str, ...]
    message: str = ""
    wakes: bool = False

    @property
    def is_routed(self) -> bool:
        """Whether the ingress routes to each of its replicas; true for one that is reached by handles only."""
        return not self.services or len(self.endpoints) == self.replicas


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """One application; ``state`` is Ray Serve's word, ``"RUNNING"``."""

    name: str
    state: str
    deployments: tuple[DeploymentStatus, ...]
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One proxy.

    Attributes:
        node_id: Ray's id of its node.
        address: Where its Envoy listens, ``"127.0.0.1:9000"``.
        up_to_date: Whether its Envoy has acknowledged the newest routing table.
        envoy_pid: Envoy's process id, 0 while it does not run.
        problem: What keeps it from serving, or from serving an application's newest state; else empty.
        version: Version of the routing table that its Envoy acknowledged last; 0 before the first.
    """

    node_id: str
    address: str
    up_to_date: bool
    envoy_pid: int
    problem: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that runs.

    Attributes:
        applications: Sorted by name.
        proxies: Sorted by node; empty when the ingress does not run.
        problem: Why the ingress does not run although applications do, where that is known.
        version: Version of the newest routing table; it grows with each change. 0 when the ingress does not run.
    """

    applications: tuple[ApplicationStatus, ...]
    proxies: tuple[ProxyStatus, ...]
    problem: str = ""
    version: int = 0

    @property
    def is_healthy(self) -> bool:
        """Whether every application runs, and every proxy serves the newest table, with each replica of them in it."""
        return (
            bool(self.proxies)
            and all(
                application.state == ServeState.RUNNING.value
                and all(deployment.is_routed for deployment in application.deployments)
                for application in self.applications
            )
            and all(proxy.up_to_date and not proxy.problem for proxy in self.proxies)
        )


def combine(
    serving: Mapping[str, ApplicationStatusOverview], ingress: IngressStatus | None
) -> tuple[tuple[ApplicationStatus, ...], tuple[ProxyStatus, ...]]:
    """Return the state of the applications and of the proxies.

    Args:
        serving: What Ray Serve says of each application, by name.
        ingress: What the controller says; None when the ingress does not run.
    """
    routed = {
        (application.name, deployment.name): deployment
        for application in (ingress.snapshot.applications if ingress else ())
        for deployment in application.deployments
    }
    applications = []
    for name, overview in sorted(serving.items()):
        deployments = []
        for deployment_name, deployment in sorted(overview.deployments.items()):
            known = routed.get((name, deployment_name))
            deployments.append(
                DeploymentStatus(
                    deployment_name,
                    deployment.status.value,
                    known.services if known else (),
                    deployment.replica_states.get(ReplicaState.RUNNING, 0),
                    tuple(format_address(endpoint.host, endpoint.port) for endpoint in known.endpoints)
                    if known
                    else (),
                    deployment.message,
                    known is not None and known.holds_calls,
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

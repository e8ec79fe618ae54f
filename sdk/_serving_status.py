"""Status of applications, deployments and proxies, as ``sdk.status`` returns it. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

# Ray Serve's `ApplicationStatus.RUNNING`.
_RUNNING = "RUNNING"


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment: its state in Ray Serve and in the ingress.

    Attributes:
        name: Its name.
        state: Its state in Ray Serve's terms, ``"HEALTHY"``.
        services: Full names of the proto services that it serves; empty when only handles reach it.
        replicas: Number of replicas that Ray Serve counts as running.
        endpoints: Addresses of the replicas that the ingress routes to.
        message: Ray Serve's message; empty when it has none.
        scaled_to_zero: True if it has no replica now and starts one on the next call.
    """

    name: str
    state: str
    services: tuple[str, ...]
    replicas: int
    endpoints: tuple[str, ...]
    message: str = ""
    scaled_to_zero: bool = False

    @property
    def is_routed(self) -> bool:
        """True if the ingress routes to each of its replicas, or if only handles reach it."""
        return not self.services or len(self.endpoints) == self.replicas


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """One application; ``state`` is in Ray Serve's terms, ``"RUNNING"``."""

    name: str
    state: str
    deployments: tuple[DeploymentStatus, ...]
    message: str = ""

    @property
    def lacks_services(self) -> bool:
        """True if it runs, and clients can't call it: no deployment serves a gRPC service."""
        return self.state == _RUNNING and not any(deployment.services for deployment in self.deployments)


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One proxy.

    Attributes:
        node_id: Ray's id of its node.
        address: Address of its Envoy's listener, ``"127.0.0.1:9000"``.
        up_to_date: True if its Envoy has acknowledged the newest routing table.
        envoy_pid: Envoy's process id, 0 while it does not run.
        problem: The reason why it does not serve, or not with an application's newest state; else empty.
        version: Version of the last routing table that its Envoy acknowledged; 0 before the first.
    """

    node_id: str
    address: str
    up_to_date: bool
    envoy_pid: int
    problem: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Applications and proxies of the cluster.

    Attributes:
        applications: Sorted by name.
        proxies: Sorted by node; empty when the ingress does not run.
        problem: The reason why applications run without an ingress, or why handlers do not know the clients of calls
            that come from another node; else empty.
        version: Version of the newest routing table; it grows with each change. 0 when the ingress does not run.
    """

    applications: tuple[ApplicationStatus, ...]
    proxies: tuple[ProxyStatus, ...]
    problem: str = ""
    version: int = 0

    @property
    def is_healthy(self) -> bool:
        """True if all applications run, and all proxies serve the newest routing table with every replica in it."""
        return (
            bool(self.proxies)
            and all(
                application.state == _RUNNING and all(deployment.is_routed for deployment in application.deployments)
                for application in self.applications
            )
            and all(proxy.up_to_date and not proxy.problem for proxy in self.proxies)
        )

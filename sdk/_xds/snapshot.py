"""The routing table as one immutable value: what the controller publishes and every proxy serves.

A snapshot says what is routed where and nothing about how Envoy is told (``resources.py`` knows that).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where one replica's wire server listens.

    Attributes:
        replica_id: Ray Serve's id of the replica, unique in the cluster.
        host: IP address of the replica's node.
        port: TCP port; the same on that address and on the node's loopback address.
        node_id: Ray's id of the node.
        socket: Name in Linux's abstract socket namespace (unix(7)) where the proxy of the same node reaches it, without
            the NUL byte before it; empty when there is none, and the loopback address is used.
    """

    replica_id: str
    host: str
    port: int
    node_id: str = ""
    socket: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Deployment:
    """One deployment of an application.

    Attributes:
        name: Its name in Ray Serve.
        services: Full names of the proto services that it answers.
        endpoints: Its ready replicas.
        descriptors: Digest of the descriptors of its services, which the controller keeps; empty when it has none.
        idempotent: Paths of the methods that may be called again when a replica is lost, sorted.
        max_waiting: Most calls that each proxy lets wait for a replica while there is none; zero when the deployment
            never scales to zero, and such calls end UNAVAILABLE.
        hidden: Full names of the services that it answers, too, and that the options of the ingress keep from clients.
    """

    name: str
    services: tuple[str, ...]
    endpoints: tuple[Endpoint, ...] = ()
    descriptors: str = ""
    idempotent: tuple[str, ...] = ()
    max_waiting: int = 0
    hidden: tuple[str, ...] = ()

    @property
    def holds_calls(self) -> bool:
        """Whether calls wait until there is a replica."""
        return self.max_waiting > 0 and not self.endpoints


@dataclass(frozen=True, slots=True, order=True)
class Application:
    """One application: the value of the ``application`` metadata and the deployments behind it."""

    name: str
    deployments: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole routing table at one version.

    Attributes:
        version: Grows with every change; proxies report the version that their Envoy acknowledged.
        applications: Sorted by name; names are unique, and so are the names of an application's deployments.
        route_by_service: Whether a call without ``application`` metadata goes to the one application that serves its
            service.
        listed_services_only: Whether only the services that the deployments list are routed: a replica may answer
            others, which the options of the ingress keep from clients.
        request_timeout_s: Seconds after which a call ends that waits for the first replica; None for no limit.
    """

    version: int
    applications: tuple[Application, ...] = ()
    route_by_service: bool = False
    listed_services_only: bool = False
    request_timeout_s: float | None = None

    def for_node(self, node_id: str) -> Snapshot:
        """Return the snapshot for the proxy of a node: only replicas on the same node are reached locally."""
        return replace(
            self,
            applications=tuple(
                replace(
                    application,
                    deployments=tuple(
                        replace(
                            deployment,
                            endpoints=tuple(
                                replace(endpoint, host="127.0.0.1")
                                if endpoint.node_id == node_id
                                else replace(endpoint, socket="")
                                for endpoint in deployment.endpoints
                            ),
                        )
                        for deployment in application.deployments
                    ),
                )
                for application in self.applications
            ),
        )

"""Registry of replicas and proxies, with leases. Plain state.

Nothing is stored. After a restart the heartbeats of replicas fill the registry again, and so do the routing tables of
the proxies, so that it never publishes less than what is served.

A change builds only the applications that it affects. The snapshot shares all others with the one before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sdk._ingress.applications import Applications
from sdk._xds.snapshot import Application, Deployment, Endpoint, Endpoints, JsonRoute, Snapshot
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from sdk._xds.rejection import RejectedApplication


_NO_ENDPOINTS = Endpoints()


@dataclass(frozen=True, slots=True)
class Replica:
    """One ready replica, as it registers.

    Attributes:
        application: Name of its application.
        deployment: Name of its deployment.
        services: Full names of the proto services that it serves.
        endpoint: Address of its wire server.
        descriptors: Digest of the descriptors of its services.
        idempotent: Paths of the methods whose calls may be retried if a replica is lost.
        max_waiting: Maximum number of calls that wait at each proxy while the deployment has no replica.
        scales_to_zero: True if the deployment may be without replicas until there is a call.
        is_exposed: False if only other deployments call it.
        http_routes: Its routes of ``google.api.http``.
    """

    application: str
    deployment: str
    services: tuple[str, ...]
    endpoint: Endpoint
    descriptors: str = ""
    idempotent: tuple[str, ...] = ()
    max_waiting: int = 0
    scales_to_zero: bool = False
    is_exposed: bool = True
    http_routes: tuple[JsonRoute, ...] = ()

    @property
    def as_deployment(self) -> Deployment:
        """The replica's deployment, without endpoints."""
        return Deployment(
            self.deployment,
            self.services,
            descriptors=self.descriptors,
            idempotent=self.idempotent,
            max_waiting=self.max_waiting,
            scales_to_zero=self.scales_to_zero,
            is_exposed=self.is_exposed,
            http_routes=self.http_routes,
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """Lease of a replica, renewed by each heartbeat.

    Attributes:
        options: Options of the ingress.
        several_nodes: True if proxies on other nodes must reach the replica; otherwise it listens on loopback only.
    """

    options: GrpcOptions
    several_nodes: bool


@dataclass(frozen=True, slots=True)
class ProxyState:
    """State of a proxy, as it reports it.

    Attributes:
        proxy_id: Unique id of one run of a proxy actor.
        node_id: Ray's id of its node.
        address: Address of its Envoy, ``"127.0.0.1:9000"``.
        version: Version of the snapshot that its Envoy acknowledged; 0 before the first.
        envoy_pid: Envoy's process id; 0 while it is not running.
        problem: Reason why it can't serve, or empty.
        rejected_applications: Applications whose newest state its Envoy rejected. All others are served at ``version``.
    """

    proxy_id: str
    node_id: str
    address: str
    version: int = 0
    envoy_pid: int = 0
    problem: str = ""
    rejected_applications: tuple[RejectedApplication, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchAnswer:
    """Answer to the long poll of a proxy.

    Attributes:
        update: What makes its table the newest one, for ``apply_update``; None if it has it.
        wants_table: True if the proxy has to poll again with its own snapshot.
    """

    update: bytes | None = None
    wants_table: bool = False


class Registry:
    """The registry of replicas and proxies.

    Args:
        lease_s: Seconds without a heartbeat after which a replica is removed.
        watched_lease_s: The same while the proxy of its node was heard of in the last ``lease_s`` seconds: it reports
            the end of a replica's process at once. ``lease_s`` by default.
        proxy_lease_s: Seconds without a report after which a proxy is removed; ``lease_s`` by default.
        pause_s: Seconds between two calls of :meth:`expire` above which this process itself was paused (a suspended
            machine, a stopped container) and received no heartbeat. Such a pause extends all leases.
        options: Options of the ingress, with full names of services in ``grpc_servicer_functions``.
        clock: Monotonic seconds.
        first_version: The first version. By default the time in milliseconds, so that the versions of a restarted
            controller are above all versions of its predecessor.

    Example:
        >>> registry = Registry(lease_s=5.0, clock=lambda: 0.0, first_version=1)
        >>> registry.register(Replica("app", "Greeter", ("greet.Greeter",), Endpoint("r1", "127.0.0.1", 4000)))
        >>> registry.snapshot.applications[0].deployments[0].endpoints[0].port
        4000
    """

    def __init__(
        self,
        *,
        lease_s: float,
        watched_lease_s: float | None = None,
        pause_s: float = float("inf"),
        proxy_lease_s: float | None = None,
        options: GrpcOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        first_version: int | None = None,
    ) -> None:
        self._lease_s = lease_s
        self._pause_s = pause_s
        self._clock = clock
        self._expired_at = clock()
        self._extra_s = 0.0 if watched_lease_s is None else watched_lease_s - lease_s
        self._proxy_lease_s = lease_s if proxy_lease_s is None else proxy_lease_s
        self._options = options or GrpcOptions()
        # The options that each replica reported to serve with.
        self._replica_options: dict[str, GrpcOptions] = {}
        self._replicas: dict[str, Replica] = {}
        self._leases: dict[str, float] = {}
        # (Application, deployment) → endpoints of its replicas. Without the deployments that have none.
        self._endpoints: dict[tuple[str, str], Endpoints] = {}
        # Deregistered replicas, with the time until which adopt() ignores them.
        self._deregistered: dict[str, float] = {}
        # Application → deployment. An application stays known when its last replica leaves, because calls must end
        # UNAVAILABLE then, not NOT_FOUND. Without endpoints, which are added for each snapshot.
        self._deployments: dict[str, dict[str, Deployment]] = {}
        self._descriptors: dict[str, bytes] = {}
        # Unknown digest → the replica that has been asked for its descriptors, and until when.
        self._asked: dict[str, tuple[str, float]] = {}
        # Applications that differ from the snapshot, with the digests that they may have had.
        self._changed: dict[str, set[str]] = {}
        # Digest → number of deployments in the snapshot that have it.
        self._announced: Counter[str] = Counter()
        # Application in the snapshot → digests of its deployments.
        self._digests: dict[str, list[str]] = {}
        self._exposed, self._inner = Applications(), Applications()
        #: Replicas that are no longer routed to, by application, deployment and reason: ``"left"`` or ``"lost"``.
        self.removed: Counter[tuple[str, str, str]] = Counter()
        self._proxies: dict[str, ProxyState] = {}
        self._proxy_leases: dict[str, float] = {}
        self._proxy_of_node: dict[str, str] = {}
        self.snapshot = Snapshot(
            int(time.time() * 1000) if first_version is None else first_version,
            **self._option_fields(),
        )

    # -- replicas -----------------------------------------------------------------------------

    def register(self, replica: Replica, descriptors: bytes = b"") -> None:
        """Add a replica, or replace one with the same id and renew its lease.

        Args:
            replica: The replica.
            descriptors: The serialized ``FileDescriptorSet`` with the replica's digest.
        """
        self._add_deployment(replica.application, replica.as_deployment)
        if replica.descriptors:
            self._descriptors[replica.descriptors] = descriptors
            self._asked.pop(replica.descriptors, None)
        self._add_replica(replica)
        self._publish()

    def renew(self, replica_id: str) -> bool:
        """Renew a lease. Return False if the replica must register: it is unknown, or chosen to bring its descriptors.

        After a restart of the controller these are unknown. One replica of all that have them is asked, and another one
        if it has not registered for the time of a lease. During an update nobody needs those of the other version.
        """
        replica = self._replicas.get(replica_id)
        if replica is None:
            return False
        digest = self._deployments[replica.application][replica.deployment].descriptors
        if digest and digest == replica.descriptors and digest not in self._descriptors:
            asked, until = self._asked.get(digest, ("", 0.0))
            if asked == replica_id or until <= self._clock() or asked not in self._replicas:
                self._asked[digest] = replica_id, self._clock() + self._lease_s
                return False
        self._leases[replica_id] = self._clock() + self._lease_s
        return True

    def set_replica_options(self, replica_id: str, options: GrpcOptions) -> bool:
        """Record the options that a replica serves with, and return whether they have changed."""
        before = self._replica_options.get(replica_id)
        self._replica_options[replica_id] = options
        return before != options

    def deregister(self, replica_id: str, reason: Literal["left", "lost"] = "left") -> bool:
        """Remove a replica, and return whether it was there.

        An unknown one is remembered, because :meth:`adopt` must not bring it back.
        """
        self._deregistered[replica_id] = self._clock() + self._lease_s
        if replica_id not in self._replicas:
            return False
        self._count_removed(replica_id, reason)
        self._remove_replica(replica_id)
        self._publish()
        return True

    def expire(self) -> tuple[str, ...]:
        """Remove replicas and proxies whose lease has expired, and return the ids of the replicas."""
        now = self._clock()
        pause, self._expired_at = now - self._expired_at, now
        if pause > self._pause_s:
            for leases in self._leases, self._proxy_leases:
                leases.update((key, until + pause) for key, until in leases.items())
        late = [replica_id for replica_id, until in self._leases.items() if until <= now]
        gone = tuple(each for each in late if self._leases[each] + self._extra_s <= now or not self._is_watched(each))
        for replica_id in gone:
            self._count_removed(replica_id, "lost")
            self._remove_replica(replica_id)
        self._deregistered = {replica_id: until for replica_id, until in self._deregistered.items() if until > now}
        for proxy_id in [proxy_id for proxy_id, until in self._proxy_leases.items() if until <= now]:
            self.remove_proxy(proxy_id)
        if gone:
            self._publish()
        return gone

    def _is_watched(self, replica_id: str) -> bool:
        """Return whether a replica's node has a proxy that was heard of within the lease of a replica."""
        proxy_id = self._proxy_of_node.get(self._replicas[replica_id].endpoint.node_id)
        if proxy_id is None:
            return False
        heard_at = self._proxy_leases[proxy_id] - self._proxy_lease_s
        return self._clock() - heard_at < self._lease_s

    def adopt(self, snapshot: Snapshot) -> None:
        """Adopt a proxy's routing table from an earlier controller. Each replica must renew its lease in time."""
        for application in (*snapshot.applications, *snapshot.inner):
            for deployment in application.deployments:
                known = self._deployments.setdefault(application.name, {})
                self._mark(application.name)
                services = (*deployment.services, *deployment.hidden)
                known.setdefault(deployment.name, replace(deployment, services=services, hidden=(), endpoints=()))
                unknown = [
                    endpoint
                    for endpoint in deployment.endpoints
                    if endpoint.replica_id not in self._replicas and endpoint.replica_id not in self._deregistered
                ]
                for endpoint in unknown:
                    self._replicas[endpoint.replica_id] = Replica(
                        application.name,
                        deployment.name,
                        services,
                        endpoint,
                        deployment.descriptors,
                        deployment.idempotent,
                        max_waiting=deployment.max_waiting,
                        scales_to_zero=deployment.scales_to_zero,
                        is_exposed=deployment.is_exposed,
                        http_routes=deployment.http_routes,
                    )
                    self._leases[endpoint.replica_id] = self._clock() + self._lease_s
                if unknown:
                    key = application.name, deployment.name
                    self._endpoints[key] = Endpoints((*self._endpoints.get(key, ()), *unknown))
        self._publish(at_least=snapshot.version)

    def descriptors(self, digest: str) -> bytes | None:
        """Return the serialized ``FileDescriptorSet`` of a digest; None if it is unknown."""
        return self._descriptors.get(digest)

    # -- options ------------------------------------------------------------------------------

    @property
    def options(self) -> GrpcOptions:
        """The current options of the ingress."""
        return self._options

    def reconfigure(self, options: GrpcOptions) -> None:
        """Change the live options of the ingress. All others stay."""
        self._options = self._options.with_live_options_of(options)
        for application in self._deployments:
            self._mark(application)
        self._publish()

    @property
    def outdated_replicas(self) -> tuple[str, ...]:
        """Ids of the replicas that have not reported to serve with the current options, sorted."""
        return tuple(sorted(key for key in self._replicas if self._replica_options.get(key) != self._options))

    # -- applications -------------------------------------------------------------------------

    def announce(self, application: str, deployments: Iterable[tuple[Deployment, bytes]]) -> None:
        """Add deployments that may not have had a replica yet.

        Args:
            application: Name of their application.
            deployments: Deployments without endpoints, each with its serialized ``FileDescriptorSet``.
        """
        for deployment, descriptors in deployments:
            self._add_deployment(application, deployment)
            if deployment.descriptors:
                self._descriptors[deployment.descriptors] = descriptors
        self._publish()

    def without_replicas(self) -> tuple[tuple[str, str], ...]:
        """Return application and name of the deployments without a ready replica."""
        return tuple(
            (app, name)
            for app, known in self._deployments.items()
            for name in known
            if (app, name) not in self._endpoints
        )

    def remove_deployments(self, deployments: Iterable[tuple[str, str]]) -> None:
        """Remove deployments, given as (application, name), that Ray Serve has removed. Those with a replica stay."""
        gone = set(deployments) & set(self.without_replicas())
        for application, name in gone:
            self._mark(application)
            del self._deployments[application][name]
            if not self._deployments[application]:
                del self._deployments[application]
        if gone:
            self._publish()

    def delete_application(self, name: str) -> None:
        """Remove a deleted application, with replicas that died and whose lease has not expired yet."""
        if name not in self._deployments:
            return
        self._mark(name)
        for deployment in self._deployments[name]:
            for endpoint in self._endpoints.get((name, deployment), _NO_ENDPOINTS):
                self._remove_replica(endpoint.replica_id)
        del self._deployments[name]
        self._publish()

    # -- proxies ------------------------------------------------------------------------------

    def report(self, state: ProxyState) -> None:
        """Record a proxy's state. It replaces an earlier proxy of the same node."""
        before = self._proxy_of_node.get(state.node_id)
        if before is not None and before != state.proxy_id:
            self.remove_proxy(before)
        self._proxy_of_node[state.node_id] = state.proxy_id
        self._proxies[state.proxy_id] = state
        self._proxy_leases[state.proxy_id] = self._clock() + self._proxy_lease_s

    def renew_proxy(self, proxy_id: str) -> None:
        """Renew the lease of a proxy, if it has reported."""
        if proxy_id in self._proxies:
            self._proxy_leases[proxy_id] = self._clock() + self._proxy_lease_s

    def remove_proxy(self, proxy_id: str) -> None:
        """Remove a proxy, so that no caller waits for its acknowledgement."""
        state = self._proxies.pop(proxy_id, None)
        if state is not None:
            del self._proxy_leases[proxy_id], self._proxy_of_node[state.node_id]

    @property
    def proxies(self) -> tuple[ProxyState, ...]:
        """State of each proxy, sorted by node."""
        return tuple(sorted(self._proxies.values(), key=lambda proxy: proxy.node_id))

    def is_acknowledged(self, version: int) -> bool:
        """Return whether the Envoy of every proxy without a problem has acknowledged this version."""
        return all(proxy.version >= version for proxy in self._proxies.values() if not proxy.problem)

    # -- the snapshot -------------------------------------------------------------------------

    def _mark(self, application: str) -> None:
        """Let the next snapshot have the newest state of an application."""
        known = self._deployments.get(application, {})
        self._changed.setdefault(application, set()).update(deployment.descriptors for deployment in known.values())

    def _add_replica(self, replica: Replica) -> None:
        replica_id = replica.endpoint.replica_id
        if self._replicas.get(replica_id) != replica:
            if replica_id in self._replicas:
                self._remove_endpoint(self._replicas[replica_id])
            key = (replica.application, replica.deployment)
            self._endpoints[key] = self._endpoints.get(key, _NO_ENDPOINTS).change(added=[replica.endpoint])
            self._mark(replica.application)
        self._replicas[replica_id] = replica
        self._leases[replica_id] = self._clock() + self._lease_s

    def _count_removed(self, replica_id: str, reason: str) -> None:
        replica = self._replicas[replica_id]
        self.removed[replica.application, replica.deployment, reason] += 1

    def _remove_replica(self, replica_id: str) -> None:
        replica = self._replicas.pop(replica_id)
        self._remove_endpoint(replica)
        self._describe_by_others(replica)
        del self._leases[replica_id]
        self._replica_options.pop(replica_id, None)

    def _remove_endpoint(self, replica: Replica) -> None:
        key = (replica.application, replica.deployment)
        left = self._endpoints[key].change(removed=[replica.endpoint])
        if left:
            self._endpoints[key] = left
        else:
            del self._endpoints[key]
        self._mark(replica.application)

    def _describe_by_others(self, gone: Replica) -> None:
        """Let those replicas that are left describe a deployment, if none is of the version of the one that has left.

        It registered last all the same, because it was late or an update was rolled back.
        """
        known, described = self._deployments[gone.application], gone.as_deployment
        if known[gone.deployment] != described:
            return
        left = self._endpoints.get((gone.application, gone.deployment), _NO_ENDPOINTS)
        others = (self._replicas[endpoint.replica_id].as_deployment for endpoint in left)
        first = next(others, described)
        if first != described and described not in others:
            known[gone.deployment] = first
            self._mark(gone.application)

    def _add_deployment(self, application: str, deployment: Deployment) -> None:
        self._mark(application)
        known = self._deployments.setdefault(application, {})
        known.pop(deployment.name, None)
        known[deployment.name] = deployment  # the newest is last
        self._mark(application)

    def _drop_replaced(self, application: str) -> None:
        """Remove deployments without replicas whose services a newer deployment of the application serves.

        An update has renamed or replaced them.
        """
        known = self._deployments.get(application, {})
        taken: set[str] = set()
        for name, deployment in reversed(list(known.items())):
            if (application, name) not in self._endpoints and not taken.isdisjoint(deployment.services):
                del known[name]
            taken.update(deployment.services)

    def _option_fields(self) -> dict[str, Any]:
        """Return the fields of a snapshot that come from the options."""
        return {
            "route_by_service": self._options.route_by_service,
            "listed_services_only": self._options.grpc_servicer_functions is not None,
            "request_timeout_s": self._options.request_timeout_s,
            "access": self._options.access,
        }

    def _hide_unlisted(self, deployment: Deployment) -> Deployment:
        """Return a deployment with the services that the options hide from clients moved to ``hidden``."""
        listed = self._options.grpc_servicer_functions
        if listed is None:
            return deployment
        return replace(
            deployment,
            services=tuple(service for service in deployment.services if service in listed),
            hidden=tuple(service for service in deployment.services if service not in listed),
        )

    def _publish(self, at_least: int = -1) -> None:
        changed, self._changed = self._changed, {}
        for application, digests in changed.items():
            self._build(application, digests)
        table = replace(
            self.snapshot, applications=self._exposed.table, inner=self._inner.table, **self._option_fields()
        )
        # A version is one table only, also if proxies have had tables of an earlier controller with higher versions.
        if at_least >= table.version or table != self.snapshot:
            self.snapshot = replace(table, version=max(table.version, at_least) + 1)

    def _build(self, name: str, digests: set[str]) -> None:
        """Put the newest state of an application into the table, and forget the digests that no deployment has."""
        self._drop_replaced(name)
        self._announced.subtract(self._digests.pop(name, ()))
        known = self._deployments.get(name, {}).values()
        if known:
            self._digests[name] = [deployment.descriptors for deployment in known]
            self._announced.update(self._digests[name])
        for digest in digests:
            if self._announced[digest] <= 0:
                del self._announced[digest]
                self._descriptors.pop(digest, None)
        self._exposed.put(name, self._application(name, is_exposed=True))
        self._inner.put(name, self._application(name, is_exposed=False))

    def _application(self, name: str, *, is_exposed: bool) -> Application | None:
        """Return an application with those deployments that clients can call, or those that they can't."""
        known = self._deployments.get(name, {})
        chosen = [deployment for deployment in known if known[deployment].is_exposed is is_exposed]
        if not chosen:
            return None
        # During an update two deployments may serve one service for a while: the first one gets its calls, so those
        # with replicas come first.
        chosen.sort(key=lambda deployment: ((name, deployment) not in self._endpoints, deployment))
        members = (
            replace(self._hide_unlisted(known[each]), endpoints=self._endpoints.get((name, each), _NO_ENDPOINTS))
            for each in chosen
        )
        return Application(name, tuple(members))

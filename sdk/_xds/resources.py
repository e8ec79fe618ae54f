"""Build Envoy's resources from routing tables, and check them before they are published. No IO."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sdk._gen import envoy_pb2 as pb
from sdk._otel.otlp import Collector
from sdk._xds.access_filters import KeyMaterial, filter_configs
from sdk._xds.access_log import COLLECTOR
from sdk._xds.assignments import AssignmentBuilder, address_problems
from sdk._xds.clusters import (
    FALLBACK_CLUSTER,
    affinity_cluster_name,
    cluster_name,
    collector_cluster,
    deployment_clusters,
    fallback_cluster,
    gate_cluster,
)
from sdk._xds.cors import cors_policy
from sdk._xds.ext_authz import GATE_CLUSTER
from sdk._xds.listener import LISTENER_NAME, ROUTE_CONFIG_NAME, ListenerConfig, build_listener
from sdk._xds.packing import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    FILTER_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    pack_resource,
    type_url,
)
from sdk._xds.routes import RouteBuilder
from sdk._xds.snapshot import Application, differing_applications
from sdk.errors import IngressError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from google.protobuf.any_pb2 import Any

    from sdk._xds.packing import Resource
    from sdk._xds.snapshot import Snapshot

__all__ = [
    "InconsistentResources",
    "ListenerConfig",
    "ResourceBuilder",
    "Resources",
    "build_resources",
    "check_resources",
]


class InconsistentResources(IngressError):
    """Resources that Envoy would NACK, or would ACK and then fail calls. They are never sent."""


@dataclass(frozen=True, slots=True)
class Resources:
    """All resources of one Envoy.

    Attributes:
        by_type: ``type_url`` → resource name → packed resource, for all five resource types.
        is_checked: True if :func:`check_resources` would find no problem.
    """

    by_type: Mapping[str, Mapping[str, Resource]]
    is_checked: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class _Built:
    """The resources of one application, but its routes.

    Attributes:
        application: The application.
        clusters: Name → packed cluster.
        endpoints: Name → packed endpoints.
        builders: Name → builder of these endpoints.
    """

    application: Application
    clusters: Mapping[str, Resource]
    endpoints: Mapping[str, Resource]
    builders: Mapping[str, AssignmentBuilder]


_NOTHING = _Built(Application("", ()), {}, {}, {})


class ResourceBuilder:
    """Builds Envoy's resources from one routing table after another, and checks them.

    It builds and checks what differs from the table before. Resources that do not differ are the same objects, and the
    resources of a type in which none differs are the same mapping.

    Args:
        node_id: Ray's id of the node of the proxy, which reaches only replicas there locally. None if the table has
            each endpoint as the proxy reaches it.
    """

    def __init__(self, node_id: str | None = None) -> None:
        self._node_id = node_id
        self._config: ListenerConfig | None = None
        self._cors: Mapping[str, Any] = {}
        self._filters_for: object = None
        # Filters, the listener, and the routes.
        self._others: dict[str, Mapping[str, Resource]] = {}
        self._clusters: Mapping[str, Resource] = {}
        self._endpoints: Mapping[str, Resource] = {}
        # The applications of the table, and the resources of each.
        self._applications: tuple[Application, ...] = ()
        self._built: dict[str, _Built] = {}
        self._routes = RouteBuilder()

    def build(self, snapshot: Snapshot, config: ListenerConfig, keys: KeyMaterial | None = None) -> Resources:
        """Return Envoy's resources for a routing table. Equal arguments give equal resources.

        If two deployments of one application serve the same service, calls go to the first one in the snapshot.

        Args:
            snapshot: The routing table.
            config: Configuration of this proxy's listener.
            keys: The keys with which Envoy checks credentials.

        Raises:
            InconsistentResources: Lists every problem of the changed resources; see :func:`check_resources`.
            ValueError: A text can't be encoded.
        """
        if config != self._config:
            self._reset(config)
        if (filters_for := (snapshot.access, keys)) != self._filters_for or FILTER_TYPE not in self._others:
            self._others[FILTER_TYPE] = filter_configs(snapshot.access, keys or KeyMaterial())
            self._filters_for = filters_for
        problems: list[str] = []
        built: dict[str, tuple[_Built, _Built]] = {}
        for old, app in differing_applications(self._applications, snapshot.applications):
            known = self._built[old.name] if old is not None else None
            if app is not None:
                new = _build_application(app, known, config.node_secrets, self._node_id, problems)
                built[app.name] = known or _NOTHING, new
            elif known is not None:
                built[known.application.name] = known, _NOTHING
        routes, changed = self._routes.build(snapshot, config.guard.secret, self._cors, config.pages)
        for name, match in changed:
            application = built[name][1] if name in built else self._built[name]
            targets = set(_match_targets(match)) - {FALLBACK_CLUSTER, *application.clusters}
            problems += [f"the routes of application {name!r} point to unknown cluster {each!r}" for each in targets]
        if problems:
            self._routes = RouteBuilder()  # which takes all routes for changed ones: they are checked again
            _raise(problems)
        if routes is not self._others.get(ROUTE_TYPE, {}).get(ROUTE_CONFIG_NAME):
            self._others[ROUTE_TYPE] = {ROUTE_CONFIG_NAME: routes}
        self._take(snapshot.applications, built.values())
        by_type = {**self._others, CLUSTER_TYPE: self._clusters, ENDPOINT_TYPE: self._endpoints}
        return Resources(by_type, is_checked=True)

    def _reset(self, config: ListenerConfig) -> None:
        fallback = fallback_cluster(config)
        clusters = {fallback.name: pack_resource(fallback)}
        if config.gate_socket:
            clusters[GATE_CLUSTER] = pack_resource(gate_cluster(config))
        if config.access_log is not None and isinstance(config.access_log.target, Collector):
            clusters[COLLECTOR] = pack_resource(collector_cluster(config.access_log.target))
        self._cors = cors_policy(config.cors_origins, config.cors_headers, credentials=config.cors_credentials)
        self._others = {LISTENER_TYPE: {LISTENER_NAME: pack_resource(build_listener(config))}}
        self._clusters, self._endpoints = clusters, {}
        self._applications, self._built, self._routes = (), {}, RouteBuilder()
        self._config = config

    def _take(self, applications: tuple[Application, ...], changes: Collection[tuple[_Built, _Built]]) -> None:
        """Put the resources of the applications that differ in the place of those before."""
        for old, new in changes:
            if new is _NOTHING:
                del self._built[old.application.name]
            else:
                self._built[new.application.name] = new
        self._applications = applications
        self._clusters = _merge(self._clusters, [(old.clusters, new.clusters) for old, new in changes])
        self._endpoints = _merge(self._endpoints, [(old.endpoints, new.endpoints) for old, new in changes])


def build_resources(
    snapshot: Snapshot, config: ListenerConfig, keys: KeyMaterial | None = None, node_id: str | None = None
) -> Resources:
    """Build Envoy's resources from one routing table; see :class:`ResourceBuilder`."""
    return ResourceBuilder(node_id).build(snapshot, config, keys)


def _build_application(
    app: Application, known: _Built | None, node_secrets: str, node_id: str | None, problems: list[str]
) -> _Built:
    clusters: dict[str, Resource] = {}
    endpoints: dict[str, Resource] = {}
    builders: dict[str, AssignmentBuilder] = {}
    for deployment in app.deployments:
        name = cluster_name(app.name, deployment.name)
        if known is not None and name in known.builders:
            builders[name] = known.builders[name]
            for each in (name, affinity_cluster_name(app.name, deployment.name)):
                clusters[each] = known.clusters[each]
        else:
            builders[name] = AssignmentBuilder(name, node_id, marks_distant=bool(node_secrets))
            for cluster in deployment_clusters(app.name, deployment.name, node_secrets):
                clusters[cluster.name] = pack_resource(cluster)
        builders[name].build(deployment.parts)
        endpoints[name] = builders[name].packed
        problems += builders[name].problems
    return _Built(app, clusters, endpoints, builders)


def _merge(
    resources: Mapping[str, Resource], changes: Iterable[tuple[Mapping[str, Resource], Mapping[str, Resource]]]
) -> Mapping[str, Resource]:
    """Return resources with those of some applications replaced; the same mapping if none differs."""
    different = [
        (old, new)
        for old, new in changes
        if old.keys() != new.keys() or any(new[name] is not packed for name, packed in old.items())
    ]
    if not different:
        return resources
    merged = dict(resources)
    for old, new in different:
        for name in old.keys() - new.keys():
            del merged[name]
        merged.update(new)
    return merged


def check_resources(resources: Resources) -> None:
    """Check that the resources are consistent.

    Envoy rejects a whole response for one invalid resource, so one application would block the updates of all others.
    It acknowledges a route to an unknown cluster, and then fails the calls.

    Raises:
        InconsistentResources: Lists every problem: a missing type, a route to an unknown cluster, a cluster without
            its endpoints or endpoints without a cluster, an endpoint address that is not an IP address.
    """
    missing = {CLUSTER_TYPE, ENDPOINT_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE} - resources.by_type.keys()
    problems = [f"no resources of type {name}" for name in sorted(missing)]
    if not missing:
        problems += [*_cluster_problems(resources), *_endpoint_problems(resources), *_route_problems(resources)]
    _raise(problems)


def _raise(problems: Sequence[str]) -> None:
    if problems:
        listed = "\n".join(f"  - {text}" for text in problems)
        raise InconsistentResources(f"Envoy's resources are inconsistent:\n{listed}")


def _cluster_problems(resources: Resources) -> Iterator[str]:
    required = set()
    for name, packed in resources.by_type[CLUSTER_TYPE].items():
        cluster = pb.Cluster.FromString(packed.value)
        if cluster.name != name:
            yield f"cluster {cluster.name!r} is stored under the name {name!r}"
        if cluster.type == pb.Cluster.EDS:
            required.add(cluster.eds_cluster_config.service_name or name)
    present = resources.by_type[ENDPOINT_TYPE].keys()
    yield from (f"a cluster needs endpoints {name!r}, which are missing" for name in sorted(required - present))
    yield from (f"no cluster uses endpoints {name!r}" for name in sorted(present - required))


def _endpoint_problems(resources: Resources) -> Iterator[str]:
    for name, packed in resources.by_type[ENDPOINT_TYPE].items():
        assignment = pb.ClusterLoadAssignment.FromString(packed.value)
        if assignment.cluster_name != name:
            yield f"endpoints {assignment.cluster_name!r} are stored under the name {name!r}"
        for locality in assignment.endpoints:
            for host in locality.lb_endpoints:
                if host.endpoint.address.pipe.path:
                    continue
                address = host.endpoint.address.socket_address
                yield from address_problems(name, address.address, address.port_value)


def _route_problems(resources: Resources) -> Iterator[str]:
    if ROUTE_CONFIG_NAME not in resources.by_type[ROUTE_TYPE]:
        yield f"the listener's route configuration {ROUTE_CONFIG_NAME!r} is missing"
    known = resources.by_type[CLUSTER_TYPE].keys()
    for name, packed in resources.by_type[ROUTE_TYPE].items():
        config = pb.RouteConfiguration.FromString(packed.value)
        for host in config.virtual_hosts:
            targets = set(_matcher_targets(host.matcher))
            yield from (f"routes {name!r} point to unknown cluster {c!r}" for c in sorted(targets - known))


def _matcher_targets(matcher: pb.Matcher) -> Iterator[str]:
    tree = matcher.matcher_tree
    for step in (
        *tree.exact_match_map.map.values(),
        *tree.prefix_match_map.map.values(),
        *(each.on_match for each in matcher.matcher_list.matchers),
        *((matcher.on_no_match,) if matcher.HasField("on_no_match") else ()),
    ):
        yield from _match_targets(step)


def _match_targets(match: pb.Matcher.OnMatch) -> Iterator[str]:
    if match.HasField("matcher"):
        yield from _matcher_targets(match.matcher)
    else:
        yield from _action_targets(match.action.typed_config)


def _action_targets(action: Any) -> Iterator[str]:
    if action.type_url == type_url(pb.RouteList):
        yield from (route.route.cluster for route in pb.RouteList.FromString(action.value).routes)
    else:
        yield pb.Route.FromString(action.value).route.cluster

"""Build Envoy's resources from a snapshot, and check them before they are published. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import DOCS_PATH
from sdk._xds.access_filters import KeyMaterial, filter_configs
from sdk._xds.clusters import deployment_clusters, deployment_endpoints, fallback_cluster, gate_cluster
from sdk._xds.cors import cors_policy
from sdk._xds.ext_authz import GATE_CLUSTER
from sdk._xds.listener import LISTENER_NAME, ROUTE_CONFIG_NAME, ListenerConfig, build_listener
from sdk._xds.packing import CLUSTER_TYPE, ENDPOINT_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, pack, type_url
from sdk._xds.routes import build_routes
from sdk.errors import IngressError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.any_pb2 import Any

    from sdk._xds.snapshot import Snapshot

__all__ = ["InconsistentResources", "ListenerConfig", "Resources", "build_resources", "check_resources"]


class InconsistentResources(IngressError):
    """Resources that Envoy would NACK, or would ACK and then fail calls. They are never sent."""


@dataclass(frozen=True, slots=True)
class Resources:
    """All resources of one Envoy.

    Attributes:
        by_type: ``type_url`` → resource name → packed resource, for all five resource types.
    """

    by_type: Mapping[str, Mapping[str, Any]]


def build_resources(snapshot: Snapshot, config: ListenerConfig, keys: KeyMaterial | None = None) -> Resources:
    """Build Envoy's resources from a routing table. Equal arguments give equal resources.

    If two deployments of one application serve the same service, calls go to the first one in the snapshot.

    Args:
        snapshot: The routing table.
        config: Configuration of this proxy's listener.
        keys: The keys with which Envoy checks credentials.
    """
    cors = cors_policy(config.cors_origins, config.cors_headers, credentials=config.cors_credentials)
    pages = (DOCS_PATH,) if config.docs else ()
    fallback = fallback_cluster(config)
    clusters = {fallback.name: pack(fallback)}
    if config.gate_socket:
        clusters[GATE_CLUSTER] = pack(gate_cluster(config))
    endpoints = {}
    for app in snapshot.applications:
        for deployment in app.deployments:
            for cluster in deployment_clusters(app.name, deployment.name, config.guard):
                clusters[cluster.name] = pack(cluster)
            assignment = deployment_endpoints(app.name, deployment)
            endpoints[assignment.cluster_name] = pack(assignment)
    return Resources(
        {
            CLUSTER_TYPE: clusters,
            ENDPOINT_TYPE: endpoints,
            FILTER_TYPE: filter_configs(snapshot.access, keys or KeyMaterial()),
            LISTENER_TYPE: {LISTENER_NAME: pack(build_listener(config))},
            ROUTE_TYPE: {ROUTE_CONFIG_NAME: pack(build_routes(snapshot, config.guard.secret, cors, pages))},
        }
    )


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
                if not _is_ip(address.address):
                    yield f"endpoints {name!r} contain {address.address!r}, which is not an IP address"
                if not 0 < address.port_value < 65536:
                    yield f"endpoints {name!r} contain port {address.port_value}"


@lru_cache(maxsize=4096)
def _is_ip(text: str) -> bool:
    # Cached: thousands of endpoints share the addresses of tens of nodes, and parsing took most of a check's time.
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


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
        *(field.on_match for field in matcher.matcher_list.matchers),
        *((matcher.on_no_match,) if matcher.HasField("on_no_match") else ()),
    ):
        if step.HasField("matcher"):
            yield from _matcher_targets(step.matcher)
        else:
            yield from _action_targets(step.action.typed_config)


def _action_targets(action: Any) -> Iterator[str]:
    if action.type_url == type_url(pb.RouteList):
        yield from (route.route.cluster for route in pb.RouteList.FromString(action.value).routes)
    else:
        yield pb.Route.FromString(action.value).route.cluster

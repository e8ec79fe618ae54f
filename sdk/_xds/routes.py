"""The route configuration: a matcher tree of exact and prefix lookups.

Its cost per call does not grow with the number of applications; a linear list of routes costs 33 µs at 1,000.
https://www.envoyproxy.io/docs/envoy/latest/api-v3/xds/type/matcher/v3/matcher.proto

    path of a built-in service            → fallback
    else `application` names an app       → that app: path → deployment, or fallback
    else `application` contains a comma   → keep its last value and match again
    else `application` is not empty       → fallback (answers NOT_FOUND)
    else there is exactly one app         → that app
    else route_by_service                 → path → the only app that serves the service, or fallback
    else                                  → fallback

At each leaf, a call with `multiplexed_model_id` goes to the cluster with model affinity. A deployment with idempotent
methods has two more lookups, by path and by the number of the client's attempts: their calls are retried if a replica
is lost in the first one. Calls to a deployment without replicas pass the gate (ext_authz.py). What can't be a call,
such as the GET of a browser, starts no replica: it goes to the proxy, which refuses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import (
    NODE_SECRET_HEADER,
    OPENAPI_PATH,
    PAGES_PREFIX,
    PRIVATE_PREFIX,
    PROXY_HEALTH_PATH,
    PROXY_LIVE_PATH,
    PROXY_READY_PATH,
)
from sdk._xds.access_filters import enabled_filters, route_metadata
from sdk._xds.clusters import FALLBACK_CLUSTER, affinity_cluster_name, cluster_name
from sdk._xds.ext_authz import gate_config
from sdk._xds.headers import set_header
from sdk._xds.listener import APPLICATION_KEY, ROUTE_CONFIG_NAME
from sdk._xds.lua_filter import enable_last_value
from sdk._xds.matchers import header_input, header_matches
from sdk._xds.packing import pack
from sdk._xds.retries import (
    BUFFERED_BYTES,
    PREVIOUS_ATTEMPTS,
    PREVIOUS_ATTEMPTS_KEY,
    fallback_retries,
    lost_replica_retries,
    safe_retries,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf.any_pb2 import Any as Packed
    from google.protobuf.message import Message

    from sdk._xds.snapshot import Application, Deployment, Snapshot

MODEL_KEY = "multiplexed_model_id"
BUILT_IN_PREFIXES = (
    "/ray.serve.RayServeAPIService/",
    "/grpc.health.v1.Health/",
    "/grpc.reflection.",
    OPENAPI_PATH,
    PAGES_PREFIX,
    PROXY_HEALTH_PATH,
    PROXY_LIVE_PATH,
    PROXY_READY_PATH,
    PRIVATE_PREFIX,
)

_OnMatch = pb.Matcher.OnMatch
# The server that gets the request decides about the rest of the content-type: gRPC, gRPC-Web, Connect, JSON.
_CALL_CONTENT_TYPE = pb.StringMatcher(prefix="application/")


def build_routes(
    snapshot: Snapshot,
    node_secret: str = "",
    filters: Mapping[str, Packed] | None = None,
    pages: Iterable[str] = (),
) -> pb.RouteConfiguration:
    """Return the route configuration of a snapshot.

    Args:
        snapshot: The routing table.
        node_secret: The secret by which replicas on other nodes know the proxy; empty without one.
        filters: ``typed_per_filter_config`` of all routes, in addition to that of the option ``access``.
        pages: Paths of pages of the proxy. An application with an own route for such a path keeps it.
    """
    # The client's address and port, for peer() of the context. It replaces what the client sent.
    added = [set_header("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS%")]
    if node_secret:
        added.append(set_header(NODE_SECRET_HEADER, node_secret))
    fallback = _on_match(_fallback_route({}))
    leaves = {
        (app.name, deployment.name): _leaf(app.name, deployment, route_metadata(snapshot.access, app.name))
        for app in snapshot.applications
        for deployment in app.deployments
    }
    apps = {app.name: _application(app, snapshot, leaves, fallback) for app in snapshot.applications}
    by_application = _OnMatch(
        matcher=_matcher_tree(
            APPLICATION_KEY, exact=apps, otherwise=_no_known_application(snapshot, apps, leaves, fallback)
        )
    )
    builtin = dict.fromkeys(BUILT_IN_PREFIXES, fallback)
    owned = tuple(prefix for app in snapshot.applications for each in app.deployments for prefix in each.http_prefixes)
    for page in pages:
        if not page.startswith(owned):
            # Without a match in it, Envoy continues as if this prefix were not there.
            builtin[page] = _OnMatch(matcher=_matcher_tree(":path", exact={page: fallback, f"{page}/": fallback}))
    matcher = _matcher_tree(":path", prefix=builtin, otherwise=by_application if apps else fallback)
    return pb.RouteConfiguration(
        name=ROUTE_CONFIG_NAME,
        virtual_hosts=[
            pb.VirtualHost(
                name="all",
                domains=["*"],
                matcher=matcher,
                retry_policy=safe_retries(),
                typed_per_filter_config={**enabled_filters(snapshot.access), **(filters or {})},
            )
        ],
        # A Trailers-Only response has content-length 0, which clients would take for metadata.
        response_headers_to_remove=["content-length"],
        request_headers_to_add=added,
    )


def _fallback_route(filters: Mapping[str, Packed]) -> pb.Route:
    to_fallback = _route_action(FALLBACK_CLUSTER)
    to_fallback.retry_policy.CopyFrom(fallback_retries())
    return pb.Route(
        match=pb.RouteMatch(prefix="/"), route=to_fallback, name=FALLBACK_CLUSTER, typed_per_filter_config=filters
    )


def _application(
    app: Application,
    snapshot: Snapshot,
    leaves: Mapping[tuple[str, str], pb.Matcher.OnMatch],
    fallback: pb.Matcher.OnMatch,
) -> pb.Matcher.OnMatch:
    metadata = route_metadata(snapshot.access, app.name)
    if len(app.deployments) == 1 and not snapshot.listed_services_only:
        # The replica answers UNIMPLEMENTED for unknown services, and can list those that it has.
        deployment, leaf = app.deployments[0], leaves[app.name, app.deployments[0].name]
        if not deployment.holds_calls or not deployment.http_prefixes:
            return leaf
        routes = dict.fromkeys(deployment.http_prefixes, _http_leaf(app.name, deployment, metadata))
        return _OnMatch(matcher=_matcher_tree(":path", prefix=routes, otherwise=leaf))
    services: dict[str, pb.Matcher.OnMatch] = {}
    for deployment in app.deployments:
        for service in deployment.services:
            services.setdefault(f"/{service}/", leaves[app.name, deployment.name])
        for prefix in _http_prefixes(deployment):
            services.setdefault(prefix, _http_leaf(app.name, deployment, metadata))
    return _OnMatch(matcher=_matcher_tree(":path", prefix=services, otherwise=fallback)) if services else fallback


def _no_known_application(
    snapshot: Snapshot,
    apps: Mapping[str, pb.Matcher.OnMatch],
    leaves: Mapping[tuple[str, str], pb.Matcher.OnMatch],
    fallback: pb.Matcher.OnMatch,
) -> pb.Matcher.OnMatch:
    """Return the match for a call whose `application` is unknown, empty or absent."""
    several_values = _fallback_route(enable_last_value())
    if any(deployment.holds_calls for app in snapshot.applications for deployment in app.deployments):
        # Envoy enables filters by the first route that it selects, which is not yet the route of the last value.
        _enable_gate(several_values)
    # The first matching predicate wins.
    known_by_value = [_application_matches(".*,.*", _on_match(several_values)), _application_matches(".+", fallback)]
    if len(apps) == 1:
        unset = next(iter(apps.values()))
    elif snapshot.route_by_service and (services := _service_owners(snapshot, leaves, fallback)):
        unset = _OnMatch(matcher=_matcher_tree(":path", prefix=services, otherwise=fallback))
    else:
        unset = fallback
    return _OnMatch(matcher=pb.Matcher(matcher_list=pb.Matcher.MatcherList(matchers=known_by_value), on_no_match=unset))


def _application_matches(application: str, then: pb.Matcher.OnMatch) -> pb.Matcher.MatcherList.FieldMatcher:
    return pb.Matcher.MatcherList.FieldMatcher(predicate=header_matches(APPLICATION_KEY, application), on_match=then)


def _service_owners(
    snapshot: Snapshot, leaves: Mapping[tuple[str, str], pb.Matcher.OnMatch], fallback: pb.Matcher.OnMatch
) -> dict[str, pb.Matcher.OnMatch]:
    owners: dict[str, tuple[str, str]] = {}
    shared: set[str] = set()
    for app in snapshot.applications:
        for deployment in app.deployments:
            for service in deployment.services:
                if owners.setdefault(service, (app.name, deployment.name))[0] != app.name:
                    shared.add(service)
    found = {f"/{service}/": fallback if service in shared else leaves[owner] for service, owner in owners.items()}
    for app in snapshot.applications:
        for deployment in app.deployments:
            for prefix in _http_prefixes(deployment):
                metadata = route_metadata(snapshot.access, app.name)
                found[prefix] = fallback if prefix in found else _http_leaf(app.name, deployment, metadata)
    return found


def _http_prefixes(deployment: Deployment) -> tuple[str, ...]:
    """Return the beginnings of its HTTP routes; none if it has hidden services, whose routes may begin like others."""
    return () if deployment.hidden else deployment.http_prefixes


def _http_leaf(application: str, deployment: Deployment, metadata: pb.Metadata | None) -> pb.Matcher.OnMatch:
    """Return the leaf of HTTP routes, whose requests may have any verb and content-type."""
    return _routes(application, deployment, None, metadata, can_be_no_call=False)


def _leaf(application: str, deployment: Deployment, metadata: pb.Metadata | None) -> pb.Matcher.OnMatch:
    leaf = _routes(application, deployment, None, metadata)
    if not deployment.idempotent:
        return leaf
    repeatable = _OnMatch(
        matcher=_matcher_tree(
            PREVIOUS_ATTEMPTS_KEY,
            exact=dict.fromkeys(PREVIOUS_ATTEMPTS, leaf),
            otherwise=_routes(application, deployment, lost_replica_retries(), metadata),
        )
    )
    return _OnMatch(
        matcher=_matcher_tree(":path", exact=dict.fromkeys(deployment.idempotent, repeatable), otherwise=leaf)
    )


def _routes(
    application: str,
    deployment: Deployment,
    retries: pb.RetryPolicy | None,
    metadata: pb.Metadata | None,
    *,
    can_be_no_call: bool = True,
) -> pb.Matcher.OnMatch:
    by_model = pb.Route(
        name=application,
        match=pb.RouteMatch(
            prefix="/",
            headers=[
                # Matches if not equal to "". An absent header counts as "": an empty model id counts as absent.
                pb.HeaderMatcher(
                    name=MODEL_KEY,
                    string_match=pb.StringMatcher(exact=""),
                    treat_missing_header_as_empty=True,
                    invert_match=True,
                )
            ],
        ),
        route=_route_action(affinity_cluster_name(application, deployment.name)),
    )
    header = pb.RouteAction.HashPolicy.Header(header_name=MODEL_KEY)
    by_model.route.hash_policy.add(header=header)
    by_load = pb.Route(
        name=application,
        match=pb.RouteMatch(prefix="/"),
        route=_route_action(cluster_name(application, deployment.name)),
    )
    for route in (by_model, by_load):
        if metadata is not None:
            route.metadata.CopyFrom(metadata)
        if retries is not None:
            route.route.retry_policy.CopyFrom(retries)
            route.per_request_buffer_limit_bytes.value = BUFFERED_BYTES
        if deployment.holds_calls:
            _enable_gate(route, application, deployment.name)
    others = _not_calls() if deployment.holds_calls and can_be_no_call else ()
    return _on_match(pb.RouteList(routes=[*others, by_model, by_load]))


def _not_calls() -> Iterator[pb.Route]:
    """Yield the routes to the proxy of requests that are not calls in any protocol."""
    for name, value in ((":method", pb.StringMatcher(exact="POST")), ("content-type", _CALL_CONTENT_TYPE)):
        route = _fallback_route({})
        route.match.headers.append(
            pb.HeaderMatcher(name=name, string_match=value, treat_missing_header_as_empty=True, invert_match=True)
        )
        yield route


def _enable_gate(route: pb.Route, application: str = "", deployment: str = "") -> pb.Route:
    for name, config in gate_config(application, deployment).items():
        route.typed_per_filter_config[name].CopyFrom(config)
    return route


def _route_action(cluster: str) -> pb.RouteAction:
    # Zero disables the timeout; by default Envoy ends every call after 15 s. The replica enforces deadlines.
    # https://www.envoyproxy.io/docs/envoy/latest/faq/configuration/timeouts
    return pb.RouteAction(cluster=cluster, timeout=Duration())


def _on_match(action: Message) -> pb.Matcher.OnMatch:
    return _OnMatch(action=pb.XdsTypedExtensionConfig(name="route", typed_config=pack(action)))


def _matcher_tree(
    header: str,
    *,
    exact: Mapping[str, pb.Matcher.OnMatch] | None = None,
    prefix: Mapping[str, pb.Matcher.OnMatch] | None = None,
    otherwise: pb.Matcher.OnMatch | None = None,
) -> pb.Matcher:
    tree = pb.Matcher.MatcherTree(input=header_input(header))
    if exact is not None:
        tree.exact_match_map.CopyFrom(pb.Matcher.MatcherTree.MatchMap(map=exact))
    if prefix is not None:
        tree.prefix_match_map.CopyFrom(pb.Matcher.MatcherTree.MatchMap(map=prefix))
    return pb.Matcher(matcher_tree=tree, on_no_match=otherwise)

"""The route configuration: a matcher tree of exact and prefix lookups.

Its cost per call does not grow with the number of applications; a linear list of routes costs 33 µs at 1,000.
https://www.envoyproxy.io/docs/envoy/latest/api-v3/xds/type/matcher/v3/matcher.proto

    path of a built-in service            → fallback
    path /APP/…, the name of an app       → remove it from the path, set `application`, and match again
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

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import (
    CONSOLE_PREFIX,
    NODE_SECRET_HEADER,
    OPENAPI_PATH,
    PAGES_PREFIX,
    PRIVATE_PREFIX,
    PROXY_HEALTH_PATH,
    PROXY_LIVE_PATH,
    PROXY_READY_PATH,
)
from sdk._xds.access_filters import NO_METHOD, enabled_filters, names_methods, proxy_metadata, route_metadata
from sdk._xds.clusters import FALLBACK_CLUSTER, affinity_cluster_name, cluster_name
from sdk._xds.ext_authz import gate_config
from sdk._xds.headers import set_header
from sdk._xds.listener import APPLICATION_KEY, ROUTE_CONFIG_NAME
from sdk._xds.lua_filter import enable_last_value, enable_path
from sdk._xds.matchers import header_input, header_matches
from sdk._xds.packing import pack, pack_resource
from sdk._xds.retries import (
    BUFFERED_BYTES,
    PREVIOUS_ATTEMPTS,
    PREVIOUS_ATTEMPTS_KEY,
    fallback_retries,
    lost_replica_retries,
    safe_retries,
)
from sdk._xds.snapshot import differing_applications

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf.any_pb2 import Any as Packed
    from google.protobuf.message import Message

    from sdk._xds.packing import Resource
    from sdk._xds.snapshot import Application, Deployment, JsonRoute, Snapshot
    from sdk.access import Access

MODEL_KEY = "multiplexed_model_id"
BUILT_IN_PREFIXES = (
    "/ray.serve.RayServeAPIService/",
    "/grpc.health.v1.Health/",
    "/grpc.reflection.",
    OPENAPI_PATH,
    CONSOLE_PREFIX,
    PAGES_PREFIX,
    PROXY_HEALTH_PATH,
    PROXY_LIVE_PATH,
    PROXY_READY_PATH,
    PRIVATE_PREFIX,
)

# Characters that no client percent-encodes: https://www.rfc-editor.org/rfc/rfc3986#section-2.3
_IN_A_PATH = re.compile(r"[A-Za-z0-9_.~-]+")
_OnMatch = pb.Matcher.OnMatch
# The server that gets the request decides about the rest of the content-type: gRPC, gRPC-Web, Connect, JSON.
_CALL_CONTENT_TYPE = pb.StringMatcher(prefix="application/")


@dataclass(frozen=True, slots=True)
class _Routed:
    """The routes of one application.

    Attributes:
        application: The application.
        key: What the routes depend on.
        leaves: Deployment → the match that is its routes.
        match: The match for the application's calls.
    """

    application: Application
    key: object
    leaves: Mapping[str, pb.Matcher.OnMatch]
    match: pb.Matcher.OnMatch


class RouteBuilder:
    """Builds the route configuration, again and again: of each application that has changed, and packs it.

    Envoy gets the routes of all applications together, because a matcher tree is one resource. A replica that comes or
    goes does not change them.
    """

    def __init__(self) -> None:
        self._options: object = None
        self._applications: tuple[Application, ...] = ()
        self._routed: dict[str, _Routed] = {}
        self._config: pb.RouteConfiguration | None = None
        self._packed: Resource | None = None

    def build(
        self,
        snapshot: Snapshot,
        node_secret: str = "",
        filters: Mapping[str, Packed] | None = None,
        pages: tuple[str, ...] = (),
    ) -> tuple[Resource, list[tuple[str, pb.Matcher.OnMatch]]]:
        """Return the packed route configuration of a snapshot, and the names and matches of changed applications.

        Args:
            snapshot: The routing table.
            node_secret: The secret by which replicas on other nodes know the proxy; empty without one.
            filters: ``typed_per_filter_config`` of all routes, in addition to that of the option ``access``.
            pages: Paths of pages of the proxy. An application with an own route for such a path keeps it.
        """
        by_service, listed_only = snapshot.route_by_service, snapshot.listed_services_only
        options = snapshot.access, by_service, listed_only, node_secret, filters, pages
        is_new = options != self._options
        fallback = _on_match(_fallback_route({}))
        before: dict[str, _Routed] = {} if is_new else self._routed
        routed, gone = before.copy(), []
        changed: list[tuple[str, pb.Matcher.OnMatch]] = []
        for old, app in differing_applications(() if is_new else self._applications, snapshot.applications):
            if app is not None:
                key = _key(app)
                known = before.get(app.name)
                if known is not None and known.key == key:
                    routed[app.name] = replace(known, application=app)
                else:
                    routed[app.name] = _route(app, key, snapshot, fallback)
                    changed.append((app.name, routed[app.name].match))
            elif old is not None:
                del routed[old.name]
                gone.append(old.name)
        if is_new or changed or gone or self._packed is None:
            otherwise = _no_known_application(snapshot, routed, fallback) if routed else fallback
            if is_new or self._config is None or not before or not routed:
                matches = {name: known.match for name, known in routed.items()}
                config = _configuration(snapshot, matches, otherwise, fallback, node_secret, filters, pages)
            else:
                config = self._config
                self._config = None  # unless it is packed
                top = config.virtual_hosts[0].matcher
                prefixes = pb.Matcher.MatcherTree.MatchMap(map=_prefixes(snapshot, fallback, pages))
                top.matcher_tree.prefix_match_map.CopyFrom(prefixes)
                matcher = top.on_no_match.matcher
                for name, match in changed:
                    matcher.matcher_tree.exact_match_map.map[name].CopyFrom(match)
                for name in gone:
                    del matcher.matcher_tree.exact_match_map.map[name]
                matcher.on_no_match.CopyFrom(otherwise)
            self._packed, self._config = pack_resource(config), config
        self._options, self._applications, self._routed = options, snapshot.applications, routed
        return self._packed, changed


def _key(app: Application) -> object:
    """Return what the routes of an application depend on: whether it has endpoints, not how many."""
    return tuple(
        (each.name, each.services, each.idempotent, each.hidden, each.http_routes, each.holds_calls)
        for each in app.deployments
    )


def _route(app: Application, key: object, snapshot: Snapshot, fallback: pb.Matcher.OnMatch) -> _Routed:
    metadata = route_metadata(snapshot.access, app.name)
    leaves = {deployment.name: _leaf(app.name, deployment, metadata) for deployment in app.deployments}
    return _Routed(app, key, leaves, _application(app, snapshot, leaves, fallback))


def _configuration(
    snapshot: Snapshot,
    apps: Mapping[str, pb.Matcher.OnMatch],
    otherwise: pb.Matcher.OnMatch,
    fallback: pb.Matcher.OnMatch,
    node_secret: str,
    filters: Mapping[str, Packed] | None,
    pages: Iterable[str],
) -> pb.RouteConfiguration:
    # The client's address and port, for peer() of the context. It replaces what the client sent.
    added = [set_header("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS%")]
    if node_secret:
        added.append(set_header(NODE_SECRET_HEADER, node_secret))
    by_application = _OnMatch(matcher=_matcher_tree(APPLICATION_KEY, exact=apps, otherwise=otherwise))
    prefixes = _prefixes(snapshot, fallback, pages)
    matcher = _matcher_tree(":path", prefix=prefixes, otherwise=by_application if apps else fallback)
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


def _prefixes(snapshot: Snapshot, fallback: pb.Matcher.OnMatch, pages: Iterable[str]) -> dict[str, pb.Matcher.OnMatch]:
    """Return the matches by the beginning of the path, before any other."""
    prefixes = dict.fromkeys(BUILT_IN_PREFIXES, fallback)
    owned = tuple(
        route.prefix for app in snapshot.applications for each in app.deployments for route in each.http_routes
    )
    for page in pages:
        if not page.startswith(owned):
            # Without a match in it, Envoy continues as if this prefix were not there.
            prefixes[page] = _OnMatch(matcher=_matcher_tree(":path", exact={page: fallback, f"{page}/": fallback}))
    # In the same tree, so that other calls cost what they cost without.
    prefixes |= dict.fromkeys(_application_prefixes(snapshot), _on_match(_again(snapshot, enable_path())))
    return prefixes


def _fallback_route(filters: Mapping[str, Packed]) -> pb.Route:
    to_fallback = _route_action(FALLBACK_CLUSTER)
    to_fallback.retry_policy.CopyFrom(fallback_retries())
    return pb.Route(
        match=pb.RouteMatch(prefix="/"),
        route=to_fallback,
        name=FALLBACK_CLUSTER,
        metadata=proxy_metadata(),
        typed_per_filter_config=filters,
    )


def _application(
    app: Application,
    snapshot: Snapshot,
    leaves: Mapping[str, pb.Matcher.OnMatch],
    fallback: pb.Matcher.OnMatch,
) -> pb.Matcher.OnMatch:
    if len(app.deployments) == 1 and not snapshot.listed_services_only:
        # The replica answers UNIMPLEMENTED for unknown services, and can list those that it has.
        deployment, leaf = app.deployments[0], leaves[app.deployments[0].name]
        routes = {}
        if deployment.holds_calls or names_methods(snapshot.access):
            routes = _http_leaves(app.name, deployment, snapshot.access)
        if routes:  # a path that begins with a service is in none of them
            routes |= dict.fromkeys((f"/{service}/" for service in deployment.services), leaf)
        return _OnMatch(matcher=_matcher_tree(":path", prefix=routes, otherwise=leaf)) if routes else leaf
    services: dict[str, pb.Matcher.OnMatch] = {}
    for deployment in app.deployments:
        for service in deployment.services:
            services.setdefault(f"/{service}/", leaves[deployment.name])
        for prefix, http_leaf in _http_leaves(app.name, deployment, snapshot.access).items():
            services.setdefault(prefix, http_leaf)
    return _OnMatch(matcher=_matcher_tree(":path", prefix=services, otherwise=fallback)) if services else fallback


def _no_known_application(
    snapshot: Snapshot, apps: Mapping[str, _Routed], fallback: pb.Matcher.OnMatch
) -> pb.Matcher.OnMatch:
    """Return the match for a call whose `application` is unknown, empty or absent."""
    several_values = _again(snapshot, enable_last_value())
    # The first matching predicate wins.
    known_by_value = [_application_matches(".*,.*", _on_match(several_values)), _application_matches(".+", fallback)]
    if len(apps) == 1:
        unset = next(iter(apps.values())).match
    elif snapshot.route_by_service and (services := _service_owners(snapshot, apps, fallback)):
        unset = _OnMatch(matcher=_matcher_tree(":path", prefix=services, otherwise=fallback))
    else:
        unset = fallback
    return _OnMatch(matcher=pb.Matcher(matcher_list=pb.Matcher.MatcherList(matchers=known_by_value), on_no_match=unset))


def _again(snapshot: Snapshot, filters: Mapping[str, Packed]) -> pb.Route:
    """Return the route of calls for which a filter has Envoy select another one."""
    route = _fallback_route(filters)
    if any(deployment.holds_calls for app in snapshot.applications for deployment in app.deployments):
        # Envoy enables filters by the first route that it selects.
        _enable_gate(route)
    return route


def _application_prefixes(snapshot: Snapshot) -> list[str]:
    """Return the paths ``/APP/`` of the applications, except those with which a service or an HTTP route begins."""
    taken = {
        beginning.split("/")[1]
        for app in snapshot.applications
        for deployment in app.deployments
        for beginning in (
            *(f"/{service}" for service in (*deployment.services, *deployment.hidden)),
            *(f"{route.prefix}/" for route in deployment.http_routes),
        )
    }
    names = (app.name for app in snapshot.applications)
    return [f"/{name}/" for name in names if name not in taken and _IN_A_PATH.fullmatch(name)]


def _application_matches(application: str, then: pb.Matcher.OnMatch) -> pb.Matcher.MatcherList.FieldMatcher:
    return pb.Matcher.MatcherList.FieldMatcher(predicate=header_matches(APPLICATION_KEY, application), on_match=then)


def _service_owners(
    snapshot: Snapshot, apps: Mapping[str, _Routed], fallback: pb.Matcher.OnMatch
) -> dict[str, pb.Matcher.OnMatch]:
    owners: dict[str, tuple[str, str]] = {}
    shared: set[str] = set()
    for app in snapshot.applications:
        for deployment in app.deployments:
            for service in deployment.services:
                if owners.setdefault(service, (app.name, deployment.name))[0] != app.name:
                    shared.add(service)
    found = {
        f"/{service}/": fallback if service in shared else apps[app].leaves[deployment]
        for service, (app, deployment) in owners.items()
    }
    for known in snapshot.applications:
        for member in known.deployments:
            for prefix, http_leaf in _http_leaves(known.name, member, snapshot.access).items():
                found[prefix] = fallback if prefix in found else http_leaf
    return found


def _http_leaves(application: str, deployment: Deployment, access: Access | None) -> dict[str, pb.Matcher.OnMatch]:
    """Return the leaves of its HTTP routes, whose requests may have any verb and content-type, by their prefixes.

    None if the deployment has hidden services, whose routes may begin like others. If rules or limits name methods,
    a leaf has the routes that begin so, each with its method, as the replica chooses among them.
    """
    if deployment.hidden:
        return {}
    metadata = route_metadata(access, application, NO_METHOD if names_methods(access) else "")
    leaves = {}
    for prefix in dict.fromkeys(route.prefix for route in deployment.http_routes):
        routes = list(_route_pair(application, deployment, None, metadata))
        if names_methods(access):
            routes[:0] = [
                _only(pair, route)
                for route in deployment.http_routes
                if prefix.startswith(route.prefix)
                for pair in _route_pair(
                    application, deployment, None, route_metadata(access, application, route.method)
                )
            ]
        leaves[prefix] = _on_match(pb.RouteList(routes=routes))
    return leaves


def _only(route: pb.Route, http_route: JsonRoute) -> pb.Route:
    """Restrict a route to the requests of a route of ``google.api.http``."""
    route.match.safe_regex.regex = http_route.pattern
    if http_route.verb != "*":
        verb = pb.HeaderMatcher(name=":method", string_match=pb.StringMatcher(exact=http_route.verb))
        route.match.headers.append(verb)
    return route


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
    otherwise = leaf
    if deployment.holds_calls:
        # A GET of Connect, with its message in the query, is a call.
        gets = _on_match(pb.RouteList(routes=_route_pair(application, deployment, None, metadata)))
        queries = {f"{path}?": gets for path in deployment.idempotent}
        otherwise = _OnMatch(matcher=_matcher_tree(":path", prefix=queries, otherwise=leaf))
    return _OnMatch(
        matcher=_matcher_tree(":path", exact=dict.fromkeys(deployment.idempotent, repeatable), otherwise=otherwise)
    )


def _routes(
    application: str, deployment: Deployment, retries: pb.RetryPolicy | None, metadata: pb.Metadata | None
) -> pb.Matcher.OnMatch:
    others = _not_calls() if deployment.holds_calls else ()
    return _on_match(pb.RouteList(routes=[*others, *_route_pair(application, deployment, retries, metadata)]))


def _route_pair(
    application: str, deployment: Deployment, retries: pb.RetryPolicy | None, metadata: pb.Metadata | None
) -> tuple[pb.Route, pb.Route]:
    """Return the routes of calls with and without ``multiplexed_model_id``."""
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
    return by_model, by_load


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

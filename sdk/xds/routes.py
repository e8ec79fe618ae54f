"""Routes: a tree of exact and prefix lookups, so a call's cost doesn't grow with the number of applications.

    path of a built-in service       → fallback
    else `application` names an app  → the app: path → deployment, or fallback
    else `application` isn't empty   → fallback (it answers NOT_FOUND)
    else one app in all              → that app
    else route_by_service            → path → the one app that serves the service, or fallback
    else                             → fallback

At each leaf, a call with `multiplexed_model_id` takes the cluster that keeps a model's calls together. Calls to a
deployment that is scaled to zero are held (holding.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from sdk.gen import envoy_pb2 as pb
from sdk.xds.clusters import FALLBACK, affinity_cluster_name, cluster_name
from sdk.xds.holding import held
from sdk.xds.listener import APPLICATION_KEY, ROUTES_NAME, header
from sdk.xds.matching import header_input, header_matches
from sdk.xds.typed import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from sdk.xds.snapshot import Application, Deployment, Snapshot

MODEL_KEY = "multiplexed_model_id"
BUILT_IN_PREFIXES = ("/ray.serve.RayServeAPIService/", "/grpc.health.v1.Health/", "/grpc.reflection.")

_OnMatch = pb.Matcher.OnMatch


def build_routes(snapshot: Snapshot) -> pb.RouteConfiguration:
    """Returns the routing tree of a snapshot."""
    fallback = _action(pb.Route(match=pb.RouteMatch(prefix="/"), route=_to(FALLBACK), name=FALLBACK))
    deployments = [(app.name, deployment) for app in snapshot.applications for deployment in app.deployments]
    leaves = {(app, deployment.name): _leaf(app, deployment) for app, deployment in deployments}
    apps = {app.name: _application(app, leaves, fallback) for app in snapshot.applications}
    unnamed = _unnamed(snapshot, apps, leaves, fallback)
    if any(deployment.is_held for _, deployment in deployments):
        unnamed = _or_several_values(unnamed)
    by_application = _OnMatch(matcher=_lookup(APPLICATION_KEY, exact=apps, otherwise=unnamed))
    builtin = dict.fromkeys(BUILT_IN_PREFIXES, fallback)
    matcher = _lookup(":path", prefix=builtin, otherwise=by_application if apps else fallback)
    return pb.RouteConfiguration(
        name=ROUTES_NAME,
        virtual_hosts=[pb.VirtualHost(name="all", domains=["*"], matcher=matcher, retry_policy=_safe_retries())],
        # An error without messages comes with a length of 0, which clients would take for metadata.
        response_headers_to_remove=["content-length"],
        # The client's address with its port, in place of whatever it sent: the context's peer().
        request_headers_to_add=[header("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS%")],
    )


def _application(
    app: Application, leaves: Mapping[tuple[str, str], pb.Matcher.OnMatch], fallback: pb.Matcher.OnMatch
) -> pb.Matcher.OnMatch:
    if len(app.deployments) == 1:
        # Its replica answers UNIMPLEMENTED for a service that it doesn't have, and can say which ones it has.
        return leaves[app.name, app.deployments[0].name]
    services: dict[str, pb.Matcher.OnMatch] = {}
    for deployment in app.deployments:
        for service in deployment.services:
            services.setdefault(f"/{service}/", leaves[app.name, deployment.name])
    return _OnMatch(matcher=_lookup(":path", prefix=services, otherwise=fallback)) if services else fallback


def _unnamed(
    snapshot: Snapshot,
    apps: Mapping[str, pb.Matcher.OnMatch],
    leaves: Mapping[tuple[str, str], pb.Matcher.OnMatch],
    fallback: pb.Matcher.OnMatch,
) -> pb.Matcher.OnMatch:
    """What happens to a call whose `application` is unknown, empty or absent."""
    if len(apps) == 1:
        unset = next(iter(apps.values()))
    elif snapshot.route_by_service and (services := _service_owners(snapshot, leaves, fallback)):
        unset = _OnMatch(matcher=_lookup(":path", prefix=services, otherwise=fallback))
    else:
        return fallback
    return _first_match(header_matches(APPLICATION_KEY, ".+"), fallback, unset)


def _first_match(
    predicate: pb.Matcher.MatcherList.Predicate, on_match: pb.Matcher.OnMatch, otherwise: pb.Matcher.OnMatch
) -> pb.Matcher.OnMatch:
    first = pb.Matcher.MatcherList.FieldMatcher(predicate=predicate, on_match=on_match)
    return _OnMatch(matcher=pb.Matcher(matcher_list=pb.Matcher.MatcherList(matchers=[first]), on_no_match=otherwise))


def _or_several_values(otherwise: pb.Matcher.OnMatch) -> pb.Matcher.OnMatch:
    """Lets calls be held that have several `application` values, and no route before the last one is picked.

    Envoy enables filters by the first route that it finds.
    """
    undecided = _hold(pb.Route(match=pb.RouteMatch(prefix="/"), route=_to(FALLBACK), name=FALLBACK))
    return _first_match(header_matches(APPLICATION_KEY, ".*,.*"), _action(undecided), otherwise)


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
    return {f"/{service}/": fallback if service in shared else leaves[owner] for service, owner in owners.items()}


def _leaf(application: str, deployment: Deployment) -> pb.Matcher.OnMatch:
    by_model = pb.Route(
        name=application,
        match=pb.RouteMatch(
            prefix="/",
            headers=[
                # Not equal to "", and absent counts as "": an empty model id is none.
                pb.HeaderMatcher(
                    name=MODEL_KEY,
                    string_match=pb.StringMatcher(exact=""),
                    treat_missing_header_as_empty=True,
                    invert_match=True,
                )
            ],
        ),
        route=_to(affinity_cluster_name(application, deployment.name)),
    )
    header = pb.RouteAction.HashPolicy.Header(header_name=MODEL_KEY)
    by_model.route.hash_policy.add(header=header)
    by_load = pb.Route(
        name=application, match=pb.RouteMatch(prefix="/"), route=_to(cluster_name(application, deployment.name))
    )
    if deployment.is_held:
        for route in by_model, by_load:
            _hold(route, application, deployment.name)
    return _action(pb.RouteList(routes=[by_model, by_load]))


def _hold(route: pb.Route, application: str = "", deployment: str = "") -> pb.Route:
    for name, config in held(application, deployment).items():
        route.typed_per_filter_config[name].CopyFrom(config)
    return route


def _to(cluster: str) -> pb.RouteAction:
    # Zero is "never"; by default Envoy cuts every call after 15 s. Deadlines are the replica's to keep.
    return pb.RouteAction(cluster=cluster, timeout=Duration())


def _action(action: Message) -> pb.Matcher.OnMatch:
    return _OnMatch(action=pb.XdsTypedExtensionConfig(name="route", typed_config=pack(action)))


def _lookup(
    header: str,
    *,
    exact: Mapping[str, pb.Matcher.OnMatch] | None = None,
    prefix: Mapping[str, pb.Matcher.OnMatch] | None = None,
    otherwise: pb.Matcher.OnMatch,
) -> pb.Matcher:
    tree = pb.Matcher.MatcherTree(input=header_input(header))
    if exact is not None:
        tree.exact_match_map.CopyFrom(pb.Matcher.MatcherTree.MatchMap(map=exact))
    if prefix is not None:
        tree.prefix_match_map.CopyFrom(pb.Matcher.MatcherTree.MatchMap(map=prefix))
    return pb.Matcher(matcher_tree=tree, on_no_match=otherwise)


def _safe_retries() -> pb.RetryPolicy:
    """Retries of calls that can't have reached a handler, on another replica."""
    previous_hosts = pb.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=pack(pb.PreviousHostsPredicate())
    )
    return pb.RetryPolicy(
        retry_on="connect-failure,refused-stream,reset-before-request",
        num_retries=UInt32Value(value=3),
        retry_host_predicate=[previous_hosts],
        host_selection_retry_max_attempts=5,
    )

from __future__ import annotations

import resource
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sdk._gen import envoy_pb2 as pb
from sdk._replica_protocol import HEALTH_CHECK_PATH
from sdk._xds.clusters import affinity_cluster_name, cluster_name
from sdk._xds.packing import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, pack, pack_resource, type_url
from sdk._xds.resources import ListenerConfig, Resources, build_resources, check_resources
from sdk._xds.routes import _only
from sdk._xds.snapshot import Application, Deployment, Endpoint, JsonRoute, Snapshot
from sdk.access import Access, Rule
from sdk.errors import IngressError, OptionsError

if TYPE_CHECKING:
    from google.protobuf.message import Message

CONFIG = ListenerConfig(fallback_socket="/tmp/fallback.sock", port=9000)
R1, R2 = Endpoint("r1", "10.0.0.1", 1001), Endpoint("r2", "10.0.0.2", 1002)
ONE = Application("one", (Deployment("Greeter", ("demo.Greeter",), (R1, R2)),))
TWO = Application("two", (Deployment("Fruit", ("demo.Fruit",), (R2,)), Deployment("Tea", ("demo.Tea", "demo.Pot"))))


def routes(snapshot: Snapshot) -> pb.Matcher:
    packed = build_resources(snapshot, CONFIG).by_type[ROUTE_TYPE]["routes"]
    (host,) = pb.RouteConfiguration.FromString(packed.value).virtual_hosts
    return host.matcher


def target(step: pb.Matcher.OnMatch, retries: str = "") -> str:
    """Return the cluster by load of a leaf, and check the retry conditions of its routes."""
    action = step.action.typed_config
    if action.type_url == type_url(pb.RouteList):
        by_model, by_load = pb.RouteList.FromString(action.value).routes
        assert by_model.route.cluster == f"{by_load.route.cluster}#model"
        assert {route.route.retry_policy.retry_on for route in (by_model, by_load)} == {retries}
        assert [policy.header.header_name for policy in by_model.route.hash_policy] == ["multiplexed_model_id"]
        return by_load.route.cluster
    return pb.Route.FromString(action.value).route.cluster


def targets(steps: pb.Matcher.MatcherTree.MatchMap) -> dict[str, str]:
    return {key: target(step) for key, step in steps.map.items()}


def by_application(snapshot: Snapshot) -> pb.Matcher:
    return routes(snapshot).on_no_match.matcher


def without_application(snapshot: Snapshot) -> pb.Matcher.OnMatch:
    otherwise = by_application(snapshot).on_no_match
    return otherwise.matcher.on_no_match if otherwise.HasField("matcher") else otherwise


def steps(matcher: pb.Matcher) -> int:
    """Return how many keys and list entries Envoy compares on the longest path through a tree."""
    tree, entries = matcher.matcher_tree, matcher.matcher_list.matchers
    inner = [*tree.exact_match_map.map.values(), *tree.prefix_match_map.map.values()]
    inner += [*(entry.on_match for entry in entries), matcher.on_no_match]
    return max(1, len(entries)) + max(steps(step.matcher) if step.HasField("matcher") else 0 for step in inner)


def test_equal_snapshots_give_equal_resources() -> None:
    assert build_resources(Snapshot(1, (ONE, TWO)), CONFIG) == build_resources(Snapshot(2, (ONE, TWO)), CONFIG)
    shuffled = replace(ONE, deployments=(replace(ONE.deployments[0], endpoints=(R2, R1)),))
    assert build_resources(Snapshot(1, (ONE,)), CONFIG) == build_resources(Snapshot(1, (shuffled,)), CONFIG)


@pytest.mark.parametrize("by_service", [False, True])
@pytest.mark.parametrize("apps", [(), (ONE,), (ONE, TWO), (Application("empty", ()),), (ONE, Application("empty", ()))])
def test_built_resources_are_consistent(apps: tuple[Application, ...], by_service: bool) -> None:
    check_resources(build_resources(Snapshot(1, apps, by_service), CONFIG))


def test_a_deployment_has_two_clusters_over_one_list_of_endpoints() -> None:
    resources = build_resources(Snapshot(1, (ONE,)), CONFIG)
    clusters = {n: pb.Cluster.FromString(p.value) for n, p in resources.by_type[CLUSTER_TYPE].items()}
    assert set(clusters) == {"fallback", "one#Greeter", "one#Greeter#model"}
    by_load, by_model = clusters["one#Greeter"], clusters["one#Greeter#model"]
    assert by_load.lb_policy == pb.Cluster.LEAST_REQUEST
    assert by_model.lb_policy == pb.Cluster.RING_HASH
    assert by_model.common_lb_config.consistent_hashing_lb_config.hash_balance_factor.value == 125
    assert {c.eds_cluster_config.service_name for c in (by_load, by_model)} == set(resources.by_type[ENDPOINT_TYPE])
    for cluster in by_load, by_model:
        (limits,) = cluster.circuit_breakers.thresholds
        assert limits.max_requests.value == 100_000
        assert 0 < limits.max_connections.value <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        assert cluster.outlier_detection.consecutive_local_origin_failure.value == 1
        assert cluster.connect_timeout.seconds == 1


def test_cluster_names_are_distinct() -> None:
    names = [
        f(app, deployment)
        for f in (cluster_name, affinity_cluster_name)
        for app, deployment in [("a", "b#c"), ("a#b", "c"), ("a", "b"), ("a#b#model", ""), ("ü", "%")]
    ]
    assert len(set(names)) == len(names)


def test_an_address_is_sent_once() -> None:
    again = Endpoint("r3", R1.host, R1.port)
    app = Application("one", (Deployment("Greeter", ("demo.Greeter",), (R1, again)),))
    (packed,) = build_resources(Snapshot(1, (app,)), CONFIG).by_type[ENDPOINT_TYPE].values()
    (hosts,) = pb.ClusterLoadAssignment.FromString(packed.value).endpoints
    assert len(hosts.lb_endpoints) == 1


def test_built_in_services_come_first() -> None:
    tree = routes(Snapshot(1, (ONE,))).matcher_tree
    assert set(targets(tree.prefix_match_map).values()) == {"fallback"}
    assert "/ray.serve.RayServeAPIService/" in tree.prefix_match_map.map


def test_no_applications() -> None:
    assert target(routes(Snapshot(1)).on_no_match) == "fallback"


@pytest.mark.parametrize("by_service", [False, True])
def test_matching_cost_does_not_depend_on_the_number_of_applications(by_service: bool) -> None:
    def apps(count: int) -> tuple[Application, ...]:
        kinds = (ONE, TWO)
        return tuple(replace(kinds[number % 2], name=f"app{number}") for number in range(count))

    few, many = (steps(routes(Snapshot(1, apps(count), route_by_service=by_service))) for count in (2, 400))
    assert few == many


def test_an_application_with_one_deployment_is_a_leaf() -> None:
    tree = by_application(Snapshot(1, (ONE, TWO))).matcher_tree
    assert tree.input.name == "application"
    assert target(tree.exact_match_map.map["one"]) == "one#Greeter"


def test_an_application_with_several_deployments_is_matched_by_service() -> None:
    inner = by_application(Snapshot(1, (ONE, TWO))).matcher_tree.exact_match_map.map["two"].matcher
    assert targets(inner.matcher_tree.prefix_match_map) == {
        "/demo.Fruit/": "two#Fruit",
        "/demo.Tea/": "two#Tea",
        "/demo.Pot/": "two#Tea",
    }
    assert target(inner.on_no_match) == "fallback"


def test_the_first_deployment_gets_the_calls_of_a_shared_service() -> None:
    app = Application("app", (Deployment("Z", ("demo.S",)), Deployment("A", ("demo.S",))))
    inner = by_application(Snapshot(1, (app,))).matcher_tree.exact_match_map.map["app"].matcher
    assert targets(inner.matcher_tree.prefix_match_map) == {"/demo.S/": "app#Z"}


def test_only_idempotent_methods_are_retried_if_a_replica_is_lost() -> None:
    paths = ("/demo.Tea/Brew", "/demo.Tea/Pour")
    tea = replace(TWO.deployments[1], idempotent=paths)
    app = replace(TWO, deployments=(TWO.deployments[0], tea))
    step = by_application(Snapshot(1, (ONE, app))).matcher_tree.exact_match_map.map["two"]
    services = step.matcher.matcher_tree.prefix_match_map.map
    assert target(services["/demo.Fruit/"]) == "two#Fruit"
    by_path = services["/demo.Tea/"].matcher
    retries = "connect-failure,refused-stream,reset-before-request,reset,retriable-headers"
    leaves = {key: leaf.matcher for key, leaf in by_path.matcher_tree.exact_match_map.map.items()}
    assert set(leaves) == set(paths)
    for by_attempts in leaves.values():
        assert target(by_attempts.on_no_match, retries) == "two#Tea"
        for number in "1234":
            assert target(by_attempts.matcher_tree.exact_match_map.map[number]) == "two#Tea", "the client repeats it"
    assert target(by_path.on_no_match) == "two#Tea"
    check_resources(build_resources(Snapshot(1, (ONE, app)), CONFIG))


def test_a_single_deployment_is_matched_by_service_if_only_listed_services_are_routed() -> None:
    snapshot = Snapshot(1, (ONE,), listed_services_only=True)
    inner = by_application(snapshot).matcher_tree.exact_match_map.map["one"].matcher
    assert targets(inner.matcher_tree.prefix_match_map) == {"/demo.Greeter/": "one#Greeter"}
    assert target(inner.on_no_match) == "fallback"
    check_resources(build_resources(snapshot, CONFIG))


def test_health_checks_find_hanging_replicas_and_are_rare_while_idle() -> None:
    packed = build_resources(Snapshot(1, (ONE,)), CONFIG).by_type[CLUSTER_TYPE]
    patience = {}
    for name in ("one#Greeter", "one#Greeter#model"):
        cluster = pb.Cluster.FromString(packed[name].value)
        (question,) = cluster.health_checks
        assert question.http_health_check.path == HEALTH_CHECK_PATH
        interval, timeout = question.interval.ToMilliseconds(), question.timeout.ToMilliseconds()
        misses = question.unhealthy_threshold.value
        # A replica hangs at the beginning of a check, or of the interval before it.
        patience[name] = [(misses * timeout + waits * interval) / 1000 for waits in (misses - 1, misses)]
        assert question.no_traffic_interval.ToMilliseconds() >= 3000
        assert cluster.ignore_health_on_host_removal, "otherwise a removed replica is kept while it is healthy"
        assert cluster.common_lb_config.healthy_panic_threshold.value == 1
    assert patience == {"one#Greeter": [1, 1.75], "one#Greeter#model": [10, 12]}, "it may load a model"
    assert cluster.common_lb_config.consistent_hashing_lb_config.hash_balance_factor.value == 125
    assert not pb.Cluster.FromString(packed["fallback"].value).health_checks


def test_without_application_metadata_the_only_application_is_called() -> None:
    assert target(without_application(Snapshot(1, (ONE,)))) == "one#Greeter"
    assert target(without_application(Snapshot(1, (ONE,), route_by_service=True))) == "one#Greeter"
    assert target(without_application(Snapshot(1, (ONE, TWO)))) == "fallback"


def test_without_application_metadata_calls_are_matched_by_service() -> None:
    other = Application("three", (Deployment("D", ("demo.Greeter", "demo.Own")),))
    step = without_application(Snapshot(1, (ONE, TWO, other), route_by_service=True)).matcher
    assert targets(step.matcher_tree.prefix_match_map) == {
        "/demo.Greeter/": "fallback",
        "/demo.Own/": "three#D",
        "/demo.Fruit/": "two#Fruit",
        "/demo.Tea/": "two#Tea",
        "/demo.Pot/": "two#Tea",
    }
    assert target(step.on_no_match) == "fallback"


def with_resource(kind: str, name: str, message: Message | None) -> Resources:
    by_type = {url: dict(named) for url, named in build_resources(Snapshot(1, (ONE,)), CONFIG).by_type.items()}
    if message is None:
        del by_type[kind][name]
    else:
        by_type[kind][name] = pack_resource(message)
    return Resources(by_type)


BAD_HOST = pb.ClusterLoadAssignment(cluster_name="one#Greeter")
BAD_HOST.endpoints.add().lb_endpoints.add().endpoint.address.socket_address.address = "node-1"


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        (with_resource(CLUSTER_TYPE, "one#Greeter", None), "point to unknown cluster 'one#Greeter'"),
        (with_resource(CLUSTER_TYPE, "fallback", None), "point to unknown cluster 'fallback'"),
        (with_resource(ENDPOINT_TYPE, "one#Greeter", None), "needs endpoints 'one#Greeter', which are missing"),
        (with_resource(ENDPOINT_TYPE, "x", pb.ClusterLoadAssignment(cluster_name="x")), "no cluster uses"),
        (with_resource(ENDPOINT_TYPE, "one#Greeter", BAD_HOST), "'node-1', which is not an IP address"),
        (with_resource(ROUTE_TYPE, "routes", None), "the listener's route configuration 'routes' is missing"),
        (with_resource(CLUSTER_TYPE, "y", pb.Cluster(name="z")), "cluster 'z' is stored under the name 'y'"),
        (Resources({}), "no resources of type type.googleapis.com/envoy.config.cluster.v3.Cluster"),
    ],
)
def test_check_rejects(resources: Resources, problem: str) -> None:
    with pytest.raises(IngressError) as caught:
        check_resources(resources)
    assert problem in str(caught.value)


def test_check_lists_every_problem() -> None:
    resources = with_resource(ENDPOINT_TYPE, "one#Greeter", BAD_HOST)
    with pytest.raises(IngressError) as caught:
        check_resources(Resources({**resources.by_type, ROUTE_TYPE: {}}))
    assert len(str(caught.value).splitlines()) == 4


def manager(config: ListenerConfig) -> pb.HttpConnectionManager:
    listener = pb.Listener.FromString(build_resources(Snapshot(1), config).by_type[LISTENER_TYPE]["grpc"].value)
    return pb.HttpConnectionManager.FromString(listener.filter_chains[0].filters[0].typed_config.value)


def test_connections_of_clients() -> None:
    config = replace(
        CONFIG, keepalive_time_s=30.5, keepalive_timeout_s=5, max_connection_idle_s=60, max_connection_age_s=600
    )
    made = manager(config)
    assert made.http2_protocol_options.connection_keepalive.interval.ToMilliseconds() == 30_500
    assert made.http2_protocol_options.connection_keepalive.timeout.seconds == 5
    assert made.common_http_protocol_options.idle_timeout.seconds == 60
    assert made.common_http_protocol_options.max_connection_duration.seconds == 600
    plain = manager(CONFIG)
    assert not plain.http2_protocol_options.HasField("connection_keepalive")
    # 12,000 responses at one moment are up to 36,000 frames; at Envoy's default of 10,000 it closed the connection.
    assert plain.http2_protocol_options.max_outbound_frames.value > 3 * 12_000
    assert plain.common_http_protocol_options.HasField("idle_timeout")
    assert not plain.common_http_protocol_options.idle_timeout.seconds, "0 is never; without the field it is an hour"
    assert not plain.common_http_protocol_options.HasField("max_connection_duration")


def test_listener() -> None:
    packed = build_resources(Snapshot(1), replace(CONFIG, host="::")).by_type[LISTENER_TYPE]["grpc"]
    listener = pb.Listener.FromString(packed.value)
    assert listener.address.socket_address.ipv4_compat
    manager = pb.HttpConnectionManager.FromString(listener.filter_chains[0].filters[0].typed_config.value)
    size = manager.max_request_headers_kb.value
    assert manager.http2_protocol_options.max_header_field_size_kb.value == size == 256, "one header may be the whole"
    assert manager.HasField("stream_idle_timeout")
    assert not manager.stream_idle_timeout.seconds


def test_envoy_does_nothing_for_the_metrics_of_a_call() -> None:
    """Nothing in its configuration can: no filter is on but the router, and it logs no call."""
    made = manager(CONFIG)
    *filters, router = made.http_filters
    assert [each.name for each in filters if not each.disabled] == []
    assert router.name == "envoy.filters.http.router"
    assert not pb.Router.FromString(router.typed_config.value).dynamic_stats.value
    assert list(made.access_log) == []


@pytest.mark.parametrize("access", [None, Access(rules=(Rule("anyone"),))], ids=["without", "with"])
def test_without_access_no_filter_of_it_is_on(access: Access | None) -> None:
    """The listener has them disabled, whatever the options. Only routes enable them: without ``access`` none does."""
    made = build_resources(Snapshot(1, (ONE, TWO), access=access), CONFIG).by_type
    listener = pb.Listener.FromString(made[LISTENER_TYPE]["grpc"].value)
    filters = pb.HttpConnectionManager.FromString(listener.filter_chains[0].filters[0].typed_config.value).http_filters
    assert {each.name: each.disabled for each in filters if each.HasField("config_discovery")} == dict.fromkeys(
        ("api-keys", "jwt", "rules", "limits"), True
    )
    enabled = b"envoy.config.route.v3.FilterConfig"
    routed = made[ROUTE_TYPE]["routes"].value
    (host,) = pb.RouteConfiguration.FromString(routed).virtual_hosts
    assert set(host.typed_per_filter_config) == ({"rules"} if access else set())
    # What else is enabled, of which an application's name in the path is a part, is not of `access`.
    assert routed.count(enabled) == len({"one", "two", "several values"}) + len(host.typed_per_filter_config)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("host", "localhost"),
        ("port", 0),
        ("port", 65536),
        ("max_concurrent_streams", 0),
    ],
)
def test_options_that_envoy_would_reject(option: str, value: object) -> None:
    with pytest.raises(OptionsError, match=option):
        replace(CONFIG, **{option: value})  # type: ignore[arg-type]  # an invalid value is the point


def test_only_marked_messages_can_be_packed() -> None:
    with pytest.raises(ValueError, match="envoy_name"):
        pack(pb.Matcher.OnMatch())


def test_only_the_proxy_of_the_same_node_uses_a_replicas_unix_socket() -> None:
    here, there = Endpoint("r1", "10.0.0.1", 1001, "n1", "s1"), Endpoint("r2", "10.0.0.2", 1002, "n2", "s2")
    snapshot = Snapshot(1, (Application("app", (Deployment("D", ("t.T",), (here, there)),)),))
    (assignment,) = build_resources(snapshot, CONFIG, node_id="n1").by_type[ENDPOINT_TYPE].values()
    hosts = pb.ClusterLoadAssignment.FromString(assignment.value).endpoints[0].lb_endpoints
    assert [host.endpoint.address.pipe.path for host in hosts] == ["@s1", ""]
    assert hosts[1].endpoint.address.socket_address.address == "10.0.0.2"


@pytest.mark.parametrize(("host", "address"), [("10.0.0.1", "10.0.0.1:1001"), ("fd00::1", "[fd00::1]:1001")])
@pytest.mark.parametrize("socket", ["", "s1"])
def test_every_proxy_hashes_the_address_that_a_replica_has_for_other_nodes(
    host: str, address: str, socket: str
) -> None:
    deployment = Deployment("D", ("t.T",), (Endpoint("r1", host, 1001, "n1", socket),))
    snapshot = Snapshot(1, (Application("app", (deployment,)),))
    metadata = {}
    for node in ("n1", "n2"):
        (assignment,) = build_resources(snapshot, CONFIG, node_id=node).by_type[ENDPOINT_TYPE].values()
        (one,) = pb.ClusterLoadAssignment.FromString(assignment.value).endpoints[0].lb_endpoints
        assert one.endpoint.hostname == "r1"
        metadata[node] = one.metadata.filter_metadata
    assert metadata["n1"]["envoy.lb"].fields["hash_key"].string_value == address
    assert not metadata["n2"], "metadata of thousands of endpoints cost Envoy three times as much for each change"


def test_a_route_for_every_verb_is_restricted_by_its_path_alone() -> None:
    for verb, verbs in (("GET", ["GET"]), ("*", [])):
        route = _only(pb.Route(), JsonRoute("/v1/", verb, "/v1/[^/]+", "/t.T/Get"))
        assert route.match.safe_regex.regex == "/v1/[^/]+"
        assert [each.string_match.exact for each in route.match.headers] == verbs

"""A builder that builds what has changed has the resources of one that builds everything."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk._xds.endpoints import Endpoint, Endpoints
from sdk._xds.packing import CLUSTER_TYPE, ENDPOINT_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE
from sdk._xds.resources import InconsistentResources, ListenerConfig, ResourceBuilder, build_resources, check_resources
from sdk._xds.snapshot import Application, Deployment, JsonRoute, Snapshot

CONFIG = ListenerConfig(fallback_socket="/f.sock", port=9000, gate_socket="/g.sock")
# Few ids and addresses, so that replicas come back, and take over the port of another one.
ENDPOINT = st.sampled_from(
    [
        Endpoint(str(number), host, port, node, socket)
        for number, host, port, node, socket in product(
            range(301), ["10.0.0.1", "10.0.0.2"], [1, 2, 3], ["n1", "n2"], ["", "s1", "s2"]
        )
    ]
)
DEPLOYMENT = st.builds(
    Deployment,
    st.sampled_from("DE"),
    st.sampled_from([(), ("t.T",), ("t.T", "t.U")]),
    st.lists(ENDPOINT, max_size=8, unique_by=lambda each: each.replica_id),
    idempotent=st.sampled_from([(), ("/t.T/Get",)]),
    max_waiting=st.sampled_from([0, 5]),
    http_routes=st.sampled_from(
        [(), (JsonRoute("/v1/things", "GET", "/v1/things", "/t.T/Get"),), (JsonRoute("/a", "GET", "/a", "/t.T/Get"),)]
    ),
)
APPLICATION = st.builds(
    Application,
    st.sampled_from("abc"),
    st.lists(DEPLOYMENT, max_size=2, unique_by=lambda each: each.name).map(tuple),
)
TABLE = st.builds(
    Snapshot,
    st.just(1),
    st.lists(APPLICATION, max_size=3, unique_by=lambda each: each.name).map(tuple),
    st.sampled_from([False, False, True]),
    st.sampled_from([False, False, True]),
)


@given(st.lists(TABLE, max_size=6))
def test_resources_built_by_changes_are_the_whole_resources(tables: list[Snapshot]) -> None:
    builder = ResourceBuilder("n1")
    known: dict[Application, Application] = {}
    for table in tables:
        # As in a real table, what has not changed is the same object.
        same = tuple(known.setdefault(app, app) for app in table.applications)
        resources = builder.build(Snapshot(1, same, table.route_by_service, table.listed_services_only), CONFIG)
        assert resources == build_resources(table, CONFIG, node_id="n1")
        check_resources(resources)


@given(st.lists(st.integers(0, 400), max_size=300), st.lists(st.integers(0, 400), max_size=40))
def test_endpoints_changed_one_by_one_have_the_parts_of_new_ones(first: list[int], changes: list[int]) -> None:
    endpoints = {number: Endpoint(f"r{number}", "10.0.0.1", 1 + number) for number in range(401)}
    held = {endpoints[number] for number in first}
    value = Endpoints(held)
    for number in changes:
        changed, before = endpoints[number], value
        value = value.change(**{"removed" if changed in held else "added": [changed]})
        added, removed = before.differences(value)
        assert (added, removed) == (([], [changed]) if changed in held else ([changed], []))
        held ^= {changed}
        assert value.parts == Endpoints(held).parts
        assert len(value) == len(held)
        assert tuple(value) == tuple(sorted(held))


def test_endpoints_refuse_a_change_that_does_not_fit() -> None:
    one = Endpoints([Endpoint("a", "h", 1)])
    for change in ({"added": [Endpoint("a", "h", 1)]}, {"removed": [Endpoint("b", "h", 1)]}):
        with pytest.raises(ValueError, match=r"is (not )?there"):
            one.change(**change)
    with pytest.raises(ValueError, match="'b' is not there"):
        Endpoints().change(removed=[Endpoint("b", "h", 1)])


def table(*applications: Application) -> Snapshot:
    return Snapshot(1, applications)


def app(name: str, *hosts: str) -> Application:
    endpoints = [Endpoint(f"{name}{n}", host, 1) for n, host in enumerate(hosts)]
    return Application(name, (Deployment("D", (f"t.{name}",), endpoints),))


def test_what_has_not_changed_is_the_same_object() -> None:
    builder, a, b = ResourceBuilder(), app("a", "10.0.0.1"), app("b", "10.0.0.1")
    before = builder.build(table(a, b), CONFIG).by_type
    after = builder.build(table(a, app("b", "10.0.0.1", "10.0.0.2")), CONFIG).by_type
    for kind in (CLUSTER_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE):
        assert after[kind] is before[kind]
    assert after[ENDPOINT_TYPE]["a#D"] is before[ENDPOINT_TYPE]["a#D"]
    assert after[ENDPOINT_TYPE]["b#D"] != before[ENDPOINT_TYPE]["b#D"]
    added = builder.build(table(a, b, app("c")), CONFIG).by_type
    assert all(added[CLUSTER_TYPE][name] is packed for name, packed in before[CLUSTER_TYPE].items())


def test_a_change_of_endpoints_encodes_one_part_again() -> None:
    builder = ResourceBuilder()
    endpoints = Endpoints(Endpoint(f"r{number}", "10.0.0.1", 1 + number) for number in range(1000))

    def pieces(endpoints: Endpoints) -> dict[int, bytes]:
        changed = Application("a", (Deployment("D", ("t.T",), endpoints),))
        (resource,) = builder.build(table(changed), CONFIG).by_type[ENDPOINT_TYPE].values()
        return {id(piece): piece for piece in resource.pieces}

    before, after = pieces(endpoints), pieces(endpoints.change(removed=endpoints[:1]))
    assert len(before) > 8
    assert len(after.keys() - before.keys()) == 2, "the name with the size, and one part"


def test_a_problem_is_found_again_until_it_is_gone() -> None:
    builder, bad = ResourceBuilder(), app("a", "node-1")
    good = builder.build(table(app("a", "10.0.0.1")), CONFIG)
    for _ in range(2):
        with pytest.raises(InconsistentResources, match="'node-1', which is not an IP address"):
            builder.build(table(bad), CONFIG)
    assert builder.build(table(app("a", "10.0.0.1")), CONFIG) == good


def test_a_text_that_can_not_be_encoded_spoils_nothing() -> None:
    builder = ResourceBuilder()
    before = builder.build(table(app("a", "10.0.0.1")), CONFIG)
    for _ in range(2):
        with pytest.raises(ValueError, match="surrogates"):
            builder.build(table(app("a", "10.0.0.1", "10.0.0.2"), app("\udcff", "10.0.0.1")), CONFIG)
    assert builder.build(table(app("a", "10.0.0.1")), CONFIG) == before

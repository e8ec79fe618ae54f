"""A proxy that is fed by deltas, with losses and restarts, holds the table of one that is fed whole tables."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk._ingress.publication import Acknowledgements, Publication, apply_update
from sdk._ingress.registry import Registry, Replica
from sdk._ingress.table_delta import DeltaRefused, TableDelta, apply, difference
from sdk._xds.snapshot import Application, Deployment, Endpoint, Endpoints, Snapshot
from sdk.options import GrpcOptions

NAMES = st.sampled_from("abc")
ENDPOINT = st.builds(Endpoint, st.integers(0, 200).map(str), st.just("10.0.0.1"), st.sampled_from([1, 2]))
REPLICA = st.builds(
    Replica,
    NAMES,
    st.sampled_from("DE"),
    st.sampled_from([("t.T",), ("t.T", "t.U")]),
    ENDPOINT,
    max_waiting=st.sampled_from([0, 3]),
    is_exposed=st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), REPLICA),
        st.tuples(st.just("deregister"), st.integers(0, 200).map(str)),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("options"), st.booleans(), st.sampled_from([None, ("t.T",)])),
        st.tuples(st.just("publish")),
        # A poll of one of two proxies. Its answer arrives, is lost, or arrives after later ones.
        st.tuples(st.just("poll"), st.sampled_from([0, 1]), st.sampled_from(["taken", "lost", "kept"])),
        st.tuples(st.just("late"), st.sampled_from([0, 1])),
        st.tuples(st.just("restart proxy"), st.sampled_from([0, 1]), st.booleans()),
        st.tuples(st.just("restart controller")),
    ),
    max_size=40,
)


class Proxy:
    """A proxy that takes updates."""

    def __init__(self) -> None:
        self.table: Snapshot | None = None
        self.kept: list[bytes] = []

    @property
    def held(self) -> int:
        return self.table.version if self.table is not None else 0

    def take(self, update: bytes | None, publication: Publication) -> None:
        if update is None:
            return
        try:
            self.table = apply_update(update, self.table)
        except DeltaRefused:
            whole = publication.update_for(0)
            assert whole is not None
            self.table = apply_update(whole, None)


@given(STEPS)
def test_deltas_in_any_order_with_losses_and_restarts_give_the_whole_table(steps: list[tuple[object, ...]]) -> None:
    registry, publication = Registry(lease_s=5, clock=lambda: 0.0, first_version=1), Publication(kept=3)
    publication.add(registry.snapshot)
    proxies = Proxy(), Proxy()
    for kind, *values in steps:
        match kind, *values:
            case "register", Replica() as replica:
                registry.register(replica)
            case "deregister", str(replica_id):
                registry.deregister(replica_id)
            case "delete", str(name):
                registry.delete_application(name)
            case "options", by_service, listed:
                assert listed is None or isinstance(listed, tuple)
                registry.reconfigure(GrpcOptions(route_by_service=bool(by_service), grpc_servicer_functions=listed))
            case "publish", *_:
                publication.add(registry.snapshot)
            case "poll", int(number), what:
                update = publication.update_for(proxies[number].held)
                if what == "taken":
                    proxies[number].take(update, publication)
                elif what == "kept" and update is not None:
                    proxies[number].kept.append(update)
            case "late", int(number):
                if proxies[number].kept:
                    # The whole table of an earlier moment may arrive late, too. The next poll has its version.
                    proxies[number].take(proxies[number].kept.pop(0), publication)
            case "restart proxy", int(number), keeps_table:
                table, proxies[number].kept = proxies[number].table, []
                proxies[number].table = pickle.loads(pickle.dumps(table)) if keeps_table else None
            case "restart controller", *_:
                first = registry.snapshot.version + 10
                registry = Registry(lease_s=5, clock=lambda: 0.0, first_version=first)
                for proxy in proxies:
                    proxy.kept = []
                    if proxy.table is not None:
                        registry.adopt(proxy.table)
                publication = Publication(kept=3)
                publication.add(registry.snapshot)
    publication.add(registry.snapshot)
    for proxy in proxies:
        proxy.take(publication.update_for(proxy.held), publication)
        assert proxy.table == registry.snapshot


def app(name: str, *replicas: str, max_waiting: int = 0) -> Application:
    endpoints = [Endpoint(replica, "10.0.0.1", 1) for replica in replicas]
    return Application(name, (Deployment("D", (f"t.{name}",), endpoints, max_waiting=max_waiting),))


BEFORE = Snapshot(1, (app("a", "r1"), app("b", "r2")))


def test_a_delta_shares_what_has_not_changed_and_has_what_has() -> None:
    after = replace(
        BEFORE, version=5, applications=(BEFORE.applications[0], app("b", "r2", "r3")), route_by_service=True
    )
    delta = difference(BEFORE, after)
    (changed,) = delta.applications["b"] or ()
    assert (list(delta.applications), changed.added, changed.removed) == (["b"], (Endpoint("r3", "10.0.0.1", 1),), ())
    assert delta.options == {"route_by_service": True}
    given_table = apply(delta, BEFORE)
    assert given_table == after
    assert given_table.applications[0] is BEFORE.applications[0]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (None, "does not fit no table"),
        (replace(BEFORE, version=2), "a delta of version 1 does not fit version 2"),
        (replace(BEFORE, applications=(app("a", "r1"), app("b", "r2", "r3"))), "'r3' is there already"),
        (replace(BEFORE, applications=(app("a", "r1"), app("b"))), "application 'b': 'r2' is not there"),
        (replace(BEFORE, applications=(app("b", "r2"),)), "application 'a' is not in the table"),
    ],
)
def test_a_delta_of_another_table_is_refused(table: Snapshot | None, problem: str) -> None:
    delta = difference(BEFORE, Snapshot(2, (app("b", "r3"),)))
    with pytest.raises(DeltaRefused, match=problem):
        apply(delta, table)


def test_a_proxy_that_is_too_far_behind_gets_the_whole_table() -> None:
    publication = Publication(kept=2)
    assert publication.update_for(0) is None, "nothing is published yet"
    for version in (1, 2, 3):
        publication.add(Snapshot(version, (app("a", f"r{version}"),)))
    found = {held: publication.update_for(held) for held in (0, 1, 2, 3, 9)}
    kinds = {held: update and type(pickle.loads(update)) for held, update in found.items()}
    assert kinds == {0: Snapshot, 1: Snapshot, 2: TableDelta, 3: None, 9: Snapshot}
    assert publication.update_for(2) is found[2], "it is pickled once for all proxies"
    assert found[1] is found[0]


def test_the_size_of_a_delta_does_not_depend_on_the_table() -> None:
    sizes = []
    for number in (1_000, 10_000):
        endpoints = Endpoints(Endpoint(f"r{n:05}", "10.0.0.1", n) for n in range(number))
        before = Snapshot(1, (Application("a", (Deployment("D", ("t.T",), endpoints),)),))
        left = endpoints.change(removed=[endpoints[500]])
        publication = Publication()
        publication.add(before)
        publication.add(Snapshot(2, (Application("a", (Deployment("D", ("t.T",), left),)),)))
        sizes.append(len(publication.update_for(1) or b""))
    assert sizes[0] == sizes[1] < 1_000


async def test_waiting_callers_are_looked_at_only_when_the_lowest_version_is_acknowledged() -> None:
    asked, acknowledged = [], 0

    def is_acknowledged(version: int) -> bool:
        asked.append(version)
        return version <= acknowledged

    waiting = Acknowledgements(is_acknowledged)
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for version, future in zip((7, 5, 6), futures, strict=True):
        waiting.add(version, future)
    assert asked == [7, 5, 5]
    futures[2].cancel()
    acknowledged = 6
    waiting.settle()
    assert [future.done() for future in futures] == [False, True, True]
    acknowledged = 7
    waiting.settle()
    assert futures[0].done()

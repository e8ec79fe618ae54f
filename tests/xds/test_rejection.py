"""Which applications a refused routing table is blamed on, and what is in force meanwhile; no Envoy and no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from sdk._xds.ads_server import ResourcesRejected
from sdk._xds.packing import CLUSTERS, ENDPOINTS, LISTENERS
from sdk._xds.rejection import Isolation, Refusal
from sdk._xds.resources import InconsistentResources
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot


class Envoy:
    """Refuses what a test tells it to, and counts what it is asked."""

    def __init__(self, refuses: Callable[[Application], bool] = lambda _: False) -> None:
        self.refuses = refuses
        self.error: Exception = ResourcesRejected(ENDPOINTS, "no such address")
        self.tries = 0
        self.now = 0.0
        self.seconds_a_try = 0.0
        self.holds: dict[str, Application] = {}
        self.isolation = Isolation(self.take, lambda: self.now)

    async def take(self, snapshot: Snapshot) -> None:
        self.tries += 1
        self.now += self.seconds_a_try
        if any(self.refuses(app) for app in snapshot.applications):
            raise self.error
        self.holds = {app.name: app for app in snapshot.applications}

    async def publish(self, *apps: Application) -> dict[str, str]:
        self.tries = 0
        self.is_complete = await self.isolation.publish(Snapshot(1, apps))
        return {refusal.application: refusal.reason for refusal in self.isolation.refusals}


def app(name: str, *replicas: str, host: str = "10.0.0.1") -> Application:
    endpoints = tuple(Endpoint(replica, host, 4000 + n) for n, replica in enumerate(replicas or ("r",)))
    return Application(name, (Deployment("D", (f"demo.{name}",), endpoints),))


def is_bad(app: Application) -> bool:
    return any(e.host == "bad" for d in app.deployments for e in d.endpoints)


def replicas(app: Application) -> list[str]:
    return [endpoint.replica_id for deployment in app.deployments for endpoint in deployment.endpoints]


async def test_what_is_good_is_published_once() -> None:
    envoy = Envoy()
    assert await envoy.publish(app("a"), app("b")) == {}
    assert envoy.tries == 1
    assert envoy.isolation.in_force == Snapshot(1, (app("a"), app("b")))


async def test_the_others_are_updated_and_the_bad_one_is_named() -> None:
    envoy = Envoy(is_bad)
    await envoy.publish(app("a"), app("b"), app("c"))
    refused = await envoy.publish(app("a", "r", "new"), app("b", host="bad"), app("c", "other"))
    assert refused == {"b": "Envoy refused ClusterLoadAssignment: no such address"}
    assert envoy.holds == {"a": app("a", "r", "new"), "b": app("b"), "c": app("c", "other")}
    assert str(Refusal("b", "why")) == "application 'b': why"


async def test_replicas_that_have_left_are_not_kept() -> None:
    envoy = Envoy(is_bad)
    await envoy.publish(app("a", "old", "stays"))
    await envoy.publish(app("a", "stays", "new", host="bad"))
    assert replicas(envoy.holds["a"]) == ["stays"]


async def test_one_that_was_never_good_is_known_without_replicas() -> None:
    envoy = Envoy(is_bad)
    await envoy.publish(app("a"), app("b", host="bad"))
    assert replicas(envoy.holds["b"]) == []
    assert envoy.holds["b"].deployments[0].services == ("demo.b",)


async def test_calls_do_not_wait_for_replicas_that_are_there_and_refused() -> None:
    def sleeper(*endpoints: Endpoint) -> Application:
        return Application("s", (Deployment("D", ("demo.s",), endpoints, max_waiting=7),))

    envoy = Envoy(is_bad)
    await envoy.publish(sleeper())
    assert envoy.holds["s"].deployments[0].is_held
    assert (await envoy.publish(sleeper(Endpoint("r", "bad", 4000)))).keys() == {"s"}
    assert not envoy.holds["s"].deployments[0].is_held
    await envoy.publish(sleeper())
    assert envoy.holds["s"].deployments[0].is_held


async def test_one_whose_very_name_is_refused_is_left_out_and_only_that() -> None:
    envoy = Envoy(lambda app: app.name == "b" or is_bad(app))
    envoy.error = UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
    refused = await envoy.publish(app("a"), app("b"), app("c"))
    assert list(refused) == ["b"]
    assert "surrogates not allowed" in refused["b"]
    assert envoy.holds.keys() == {"a", "c"}
    await envoy.publish(app("a"), app("b"), app("c", "more"))
    assert envoy.holds.keys() == {"a", "c"}
    assert await envoy.publish(app("a"), app("c", "more")) == {}, "it was deleted"


@pytest.mark.parametrize("bad", [{7}, {0, 999}, {499, 500, 501}])
async def test_a_thousand_applications_are_halved_not_tried_one_by_one(bad: set[int]) -> None:
    envoy = Envoy(is_bad)
    apps = [app(f"{n:03}", host="bad" if n in bad else "10.0.0.1") for n in range(1000)]
    assert (await envoy.publish(*apps)).keys() == {f"{n:03}" for n in bad}
    assert envoy.tries <= 4 + 22 * len(bad)
    assert all(replicas(envoy.holds[a.name]) == ([] if is_bad(a) else ["r"]) for a in apps)


async def test_a_search_is_bounded_and_goes_on_where_it_was() -> None:
    envoy = Envoy(is_bad)
    envoy.seconds_a_try = 0.5
    apps = [app(f"{n:02}", host="bad" if n % 3 else "10.0.0.1") for n in range(48)]
    rounds = 0
    while not rounds or not envoy.is_complete:
        began, rounds = envoy.now, rounds + 1
        await envoy.publish(*apps)
        assert envoy.now - began <= 7, "a proxy's lease"
        assert rounds < 40
    assert rounds > 1
    assert {refusal.application for refusal in envoy.isolation.refusals} == {a.name for a in apps if is_bad(a)}
    assert all(replicas(envoy.holds[a.name]) == ([] if is_bad(a) else ["r"]) for a in apps)


async def test_only_what_changed_is_searched() -> None:
    envoy = Envoy(is_bad)
    apps = [app(f"{n:03}") for n in range(1000)]
    await envoy.publish(*apps)
    apps[3] = app("003", host="bad")
    await envoy.publish(*apps)
    assert envoy.tries == 3, "all, all but the one, and the end"


async def test_what_is_refused_waits_until_it_changes() -> None:
    envoy = Envoy(is_bad)
    await envoy.publish(app("a"), app("b", host="bad"))
    assert (await envoy.publish(app("a", "more"), app("b", host="bad"))).keys() == {"b"}
    assert envoy.tries == 1, "the same again is not tried again"
    assert replicas(envoy.holds["a"]) == ["more"]
    assert await envoy.publish(app("a", "more"), app("b", "mended")) == {}
    assert replicas(envoy.holds["b"]) == ["mended"]


async def test_what_is_refused_is_tried_again_after_a_while() -> None:
    envoy = Envoy(is_bad)
    table = app("a"), app("b", host="bad")
    await envoy.publish(*table)
    envoy.now = 29
    assert not envoy.isolation.is_retry_due()
    envoy.now = 31
    assert envoy.isolation.is_retry_due()
    assert (await envoy.publish(*table)).keys() == {"b"}
    assert not envoy.isolation.is_retry_due()
    envoy.now = 62
    envoy.refuses = lambda _: False
    assert await envoy.publish(*table) == {}
    assert envoy.holds["b"] == table[1]


async def test_what_is_found_here_is_blamed_in_one_line() -> None:
    envoy = Envoy(is_bad)
    envoy.error = InconsistentResources("Envoy's resources are inconsistent:\n  - endpoints 'b#D' hold 'bad'")
    reasons = await envoy.publish(app("a"), app("b", host="bad"))
    assert reasons == {"b": "Envoy's resources are inconsistent: - endpoints 'b#D' hold 'bad'"}


async def test_a_listener_is_nobodys_fault() -> None:
    envoy = Envoy(lambda _: True)
    envoy.error = ResourcesRejected(LISTENERS, "address in use")
    with pytest.raises(ResourcesRejected, match="address in use"):
        await envoy.publish(app("a"))
    assert (envoy.tries, envoy.isolation.refusals, envoy.isolation.in_force) == (1, (), None)


async def test_what_is_refused_without_anything_new_in_it_is_nobodys_fault() -> None:
    envoy = Envoy()
    await envoy.publish(app("a"))
    envoy.refuses = lambda _: True
    envoy.error = ResourcesRejected(CLUSTERS, "out of memory")
    with pytest.raises(ResourcesRejected, match="out of memory"):
        await envoy.publish(app("a"))
    with pytest.raises(ResourcesRejected, match="out of memory"):
        await envoy.publish(app("a"), app("b"))
    assert envoy.isolation.refusals == ()


async def test_an_envoy_that_does_not_answer_blames_nobody() -> None:
    envoy = Envoy(lambda _: True)
    envoy.error = asyncio.TimeoutError()
    with pytest.raises(asyncio.TimeoutError):
        await envoy.publish(app("a"))
    assert envoy.isolation.refusals == ()


async def test_options_of_the_table_stay() -> None:
    envoy = Envoy(is_bad)
    table = Snapshot(7, (app("a"), app("b", host="bad")), route_by_service=True, listed_services_only=True)
    await envoy.isolation.publish(table)
    assert envoy.isolation.in_force is not None
    assert replace(envoy.isolation.in_force, applications=()) == replace(table, applications=())

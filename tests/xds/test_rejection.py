"""Isolation of rejected applications, and the table that is in force meanwhile. Without Envoy and sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from sdk._xds.ads_server import ResourcesRejected
from sdk._xds.packing import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE
from sdk._xds.rejection import IsolatingPublisher, RejectedApplication
from sdk._xds.resources import InconsistentResources
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot


class Envoy:
    """Fake Envoy that rejects some applications and counts the tries."""

    def __init__(self, rejects: Callable[[Application], bool] = lambda _: False) -> None:
        self.rejects = rejects
        self.error: Exception = ResourcesRejected(ENDPOINT_TYPE, "no such address")
        self.tries = 0
        self.now = 0.0
        self.seconds_a_try = 0.0
        self.holds: dict[str, Application] = {}
        self.publisher = IsolatingPublisher(self.take, lambda: self.now)

    async def take(self, snapshot: Snapshot) -> None:
        self.tries += 1
        self.now += self.seconds_a_try
        if any(self.rejects(app) for app in snapshot.applications):
            raise self.error
        self.holds = {app.name: app for app in snapshot.applications}

    async def publish(self, *apps: Application) -> dict[str, str]:
        self.tries = 0
        self.is_complete = await self.publisher.publish(Snapshot(1, apps))
        return {rejected.application: rejected.reason for rejected in self.publisher.rejected_applications}


def app(name: str, *replicas: str, host: str = "10.0.0.1") -> Application:
    endpoints = tuple(Endpoint(replica, host, 4000 + n) for n, replica in enumerate(replicas or ("r",)))
    return Application(name, (Deployment("D", (f"demo.{name}",), endpoints),))


def is_bad(app: Application) -> bool:
    return any(e.host == "bad" for d in app.deployments for e in d.endpoints)


def replicas(app: Application) -> list[str]:
    return [endpoint.replica_id for deployment in app.deployments for endpoint in deployment.endpoints]


async def test_valid_applications_are_published_once() -> None:
    envoy = Envoy()
    assert await envoy.publish(app("a"), app("b")) == {}
    assert envoy.tries == 1
    assert envoy.publisher.in_force == Snapshot(1, (app("a"), app("b")))


async def test_the_others_are_updated_and_the_rejected_one_is_reported() -> None:
    envoy = Envoy(is_bad)
    await envoy.publish(app("a"), app("b"), app("c"))
    rejected = await envoy.publish(app("a", "r", "new"), app("b", host="bad"), app("c", "other"))
    assert rejected == {"b": "Envoy rejected ClusterLoadAssignment: no such address"}
    assert envoy.holds == {"a": app("a", "r", "new"), "b": app("b"), "c": app("c", "other")}
    assert str(RejectedApplication("b", "why")) == "application 'b': why"


async def test_a_rejected_application_does_not_keep_removed_replicas() -> None:
    envoy = Envoy(is_bad)
    await envoy.publish(app("a", "old", "stays"))
    await envoy.publish(app("a", "stays", "new", host="bad"))
    assert replicas(envoy.holds["a"]) == ["stays"]


async def test_an_application_that_was_never_accepted_has_no_endpoints() -> None:
    envoy = Envoy(is_bad)
    await envoy.publish(app("a"), app("b", host="bad"))
    assert replicas(envoy.holds["b"]) == []
    assert envoy.holds["b"].deployments[0].services == ("demo.b",)


async def test_calls_do_not_wait_for_rejected_replicas() -> None:
    def scaled_to_zero(*endpoints: Endpoint) -> Application:
        return Application("s", (Deployment("D", ("demo.s",), endpoints, max_waiting=7),))

    envoy = Envoy(is_bad)
    await envoy.publish(scaled_to_zero())
    assert envoy.holds["s"].deployments[0].holds_calls
    assert (await envoy.publish(scaled_to_zero(Endpoint("r", "bad", 4000)))).keys() == {"s"}
    assert not envoy.holds["s"].deployments[0].holds_calls
    await envoy.publish(scaled_to_zero())
    assert envoy.holds["s"].deployments[0].holds_calls


async def test_an_application_that_is_rejected_without_endpoints_is_left_out() -> None:
    envoy = Envoy(lambda app: app.name == "b" or is_bad(app))
    envoy.error = UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
    rejected = await envoy.publish(app("a"), app("b"), app("c"))
    assert list(rejected) == ["b"]
    assert "surrogates not allowed" in rejected["b"]
    assert envoy.holds.keys() == {"a", "c"}
    await envoy.publish(app("a"), app("b"), app("c", "more"))
    assert envoy.holds.keys() == {"a", "c"}
    assert await envoy.publish(app("a"), app("c", "more")) == {}, "it was deleted"


@pytest.mark.parametrize("bad", [{7}, {0, 999}, {499, 500, 501}])
async def test_a_thousand_applications_are_bisected(bad: set[int]) -> None:
    envoy = Envoy(is_bad)
    apps = [app(f"{n:03}", host="bad" if n in bad else "10.0.0.1") for n in range(1000)]
    assert (await envoy.publish(*apps)).keys() == {f"{n:03}" for n in bad}
    assert envoy.tries <= 4 + 22 * len(bad)
    assert all(replicas(envoy.holds[a.name]) == ([] if is_bad(a) else ["r"]) for a in apps)


async def test_a_search_is_bounded_and_continues_in_the_next_publish() -> None:
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
    assert {rejected.application for rejected in envoy.publisher.rejected_applications} == {
        a.name for a in apps if is_bad(a)
    }
    assert all(replicas(envoy.holds[a.name]) == ([] if is_bad(a) else ["r"]) for a in apps)


async def test_only_changed_applications_are_searched() -> None:
    envoy = Envoy(is_bad)
    apps = [app(f"{n:03}") for n in range(1000)]
    await envoy.publish(*apps)
    apps[3] = app("003", host="bad")
    await envoy.publish(*apps)
    assert envoy.tries == 3, "all, all except the changed one, and the final state"


async def test_a_rejected_application_is_not_tried_until_it_changes() -> None:
    envoy = Envoy(is_bad)
    await envoy.publish(app("a"), app("b", host="bad"))
    assert (await envoy.publish(app("a", "more"), app("b", host="bad"))).keys() == {"b"}
    assert envoy.tries == 1, "an unchanged application is not tried again"
    assert replicas(envoy.holds["a"]) == ["more"]
    assert await envoy.publish(app("a", "more"), app("b", "fixed")) == {}
    assert replicas(envoy.holds["b"]) == ["fixed"]


async def test_a_rejected_application_is_tried_again_after_30_s() -> None:
    envoy = Envoy(is_bad)
    table = app("a"), app("b", host="bad")
    await envoy.publish(*table)
    envoy.now = 29
    assert not envoy.publisher.is_retry_due()
    envoy.now = 31
    assert envoy.publisher.is_retry_due()
    assert (await envoy.publish(*table)).keys() == {"b"}
    assert not envoy.publisher.is_retry_due()
    envoy.now = 62
    envoy.rejects = lambda _: False
    assert await envoy.publish(*table) == {}
    assert envoy.holds["b"] == table[1]


async def test_a_failed_check_is_reported_in_one_line() -> None:
    envoy = Envoy(is_bad)
    envoy.error = InconsistentResources("Envoy's resources are inconsistent:\n  - endpoints 'b#D' hold 'bad'")
    reasons = await envoy.publish(app("a"), app("b", host="bad"))
    assert reasons == {"b": "Envoy's resources are inconsistent: - endpoints 'b#D' hold 'bad'"}


async def test_a_rejected_listener_is_raised() -> None:
    envoy = Envoy(lambda _: True)
    envoy.error = ResourcesRejected(LISTENER_TYPE, "address in use")
    with pytest.raises(ResourcesRejected, match="address in use"):
        await envoy.publish(app("a"))
    assert (envoy.tries, envoy.publisher.rejected_applications, envoy.publisher.in_force) == (1, (), None)


async def test_a_rejected_table_without_changes_is_raised() -> None:
    envoy = Envoy()
    await envoy.publish(app("a"))
    envoy.rejects = lambda _: True
    envoy.error = ResourcesRejected(CLUSTER_TYPE, "out of memory")
    with pytest.raises(ResourcesRejected, match="out of memory"):
        await envoy.publish(app("a"))
    with pytest.raises(ResourcesRejected, match="out of memory"):
        await envoy.publish(app("a"), app("b"))
    assert envoy.publisher.rejected_applications == ()


async def test_a_timeout_rejects_no_application() -> None:
    envoy = Envoy(lambda _: True)
    envoy.error = TimeoutError()
    with pytest.raises(asyncio.TimeoutError):
        await envoy.publish(app("a"))
    assert envoy.publisher.rejected_applications == ()


async def test_options_of_the_table_are_kept() -> None:
    envoy = Envoy(is_bad)
    table = Snapshot(7, (app("a"), app("b", host="bad")), route_by_service=True, listed_services_only=True)
    await envoy.publisher.publish(table)
    assert envoy.publisher.in_force is not None
    assert replace(envoy.publisher.in_force, applications=()) == replace(table, applications=())

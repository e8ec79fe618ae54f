from __future__ import annotations

import pytest

from sdk._ingress.recovery import Recovery
from sdk._ingress.registry import ProxyState, Registry, Replica
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recovery(clock: Clock) -> Recovery:
    return Recovery(7.0, clock)


def test_the_first_controller_has_nothing_to_recover(recovery: Recovery) -> None:
    assert not recovery.is_over, "it does not know the existing proxies yet"
    recovery.expect(set())
    assert recovery.is_over


def test_recovery_waits_for_every_existing_proxy(recovery: Recovery) -> None:
    recovery.record_report("a", holds_table=True)  # before the controller knows the existing proxies
    assert not recovery.is_over
    recovery.expect({"a", "b"})
    assert not recovery.is_over
    recovery.record_report("b", holds_table=False)
    assert recovery.is_over


def test_recovery_does_not_wait_for_a_lost_proxy_longer_than_for_replicas(recovery: Recovery, clock: Clock) -> None:
    recovery.expect({"a"})
    clock.now = 6.9
    assert not recovery.is_over
    clock.now = 7
    assert recovery.is_over


def test_recovery_waits_for_replicas_if_no_proxy_has_a_table(recovery: Recovery, clock: Clock) -> None:
    recovery.expect({"a"})
    recovery.record_report("a", holds_table=False)
    assert not recovery.is_over, "an empty table would turn UNAVAILABLE into NOT_FOUND"
    clock.now = 7
    assert recovery.is_over


def test_recovery_stays_over(recovery: Recovery) -> None:
    recovery.expect({"a"})
    recovery.record_report("a", holds_table=True)
    recovery.expect({"a", "new"})
    assert recovery.is_over


def test_controller_and_proxy_that_restart_together_keep_the_routing_table(recovery: Recovery, clock: Clock) -> None:
    endpoint = Endpoint("r", "127.0.0.1", 4000)
    kept = Snapshot(50, (Application("app", (Deployment("D", ("t.T",), (endpoint,)),)),))
    registry = Registry(lease_s=7, clock=clock, first_version=10)
    recovery.expect({"a"})
    # The next proxy actor sends the table that it found with its Envoy.
    registry.adopt(kept)
    recovery.record_report("a", holds_table=True)
    registry.report(ProxyState("p2", "a", "127.0.0.1:9000", version=50))
    assert recovery.is_over
    assert registry.snapshot.applications == kept.applications
    assert registry.snapshot.version > 50
    clock.now = 6
    registry.register(Replica("app", "D", ("t.T",), endpoint))
    clock.now = 7
    assert registry.expire() == (), "the replica has sent its heartbeat"


def test_the_lease_of_a_proxy_covers_its_restart(clock: Clock) -> None:
    registry = Registry(lease_s=7, proxy_lease_s=15, clock=clock, first_version=10)
    registry.report(ProxyState("p1", "a", "127.0.0.1:9000", version=10))
    registry.register(Replica("app", "D", ("t.T",), Endpoint("r", "127.0.0.1", 4000)))
    clock.now = 14
    registry.expire()
    assert not registry.is_acknowledged(registry.snapshot.version), "its Envoy still routes by the old table"
    registry.report(ProxyState("p2", "a", "127.0.0.1:9000", version=registry.snapshot.version))
    assert registry.is_acknowledged(registry.snapshot.version)
    clock.now = 29
    registry.expire()
    assert registry.proxies == ()


def test_a_replica_that_leaves_during_recovery_does_not_come_back(clock: Clock) -> None:
    old = Endpoint("old", "127.0.0.1", 4000)
    held = Snapshot(50, (Application("app", (Deployment("D", ("t.T",), (old,)),)),))
    registry = Registry(lease_s=7, clock=clock, first_version=10)
    registry.deregister("old")
    registry.adopt(held)
    assert registry.snapshot.applications[0].deployments[0].endpoints == ()
    assert registry.snapshot.version > 50, "the proxy must get a new snapshot"

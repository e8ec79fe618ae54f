from __future__ import annotations

from dataclasses import replace

import pytest

from sdk._ingress.registry import ProxyState, Registry, Replica
from sdk._xds.rejection import RejectedApplication
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from sdk.options import GrpcOptions

E = Endpoint("e", "127.0.0.1", 4000)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    return Registry(lease_s=5, clock=clock, first_version=10)


def replica(name: str, application: str = "app", deployment: str = "D") -> Replica:
    return Replica(application, deployment, ("t.T",), Endpoint(name, "127.0.0.1", 4000))


def endpoints(registry: Registry) -> list[str]:
    return [
        endpoint.replica_id
        for application in registry.snapshot.applications
        for deployment in application.deployments
        for endpoint in deployment.endpoints
    ]


def test_each_change_of_replicas_is_a_new_version(registry: Registry) -> None:
    registry.register(replica("b"))
    registry.register(replica("a"))
    assert (registry.snapshot.version, endpoints(registry)) == (12, ["a", "b"])
    registry.register(replica("a"))
    assert registry.snapshot.version == 12, "nothing changed"
    registry.deregister("b")
    registry.deregister("b")
    assert (registry.snapshot.version, endpoints(registry)) == (13, ["a"])


def test_a_replica_whose_proxy_is_heard_of_has_a_longer_lease(clock: Clock) -> None:
    registry = Registry(lease_s=5, watched_lease_s=20, proxy_lease_s=15, clock=clock, first_version=0)
    registry.report(ProxyState("p", "n", "127.0.0.1:9000"))
    for name, node in ("watched", "n"), ("on another node", "m"):
        registry.register(Replica("app", "D", ("t.T",), Endpoint(name, "127.0.0.1", 4000, node_id=node)))
    for clock.now in (4.0, 8.0):
        registry.renew_proxy("p")
    assert registry.expire() == ("on another node",)
    clock.now = 12.0
    assert registry.expire() == ()
    clock.now = 13.0
    assert registry.expire() == ("watched",), "the proxy, too, was not heard of for five seconds"


def test_a_replica_without_heartbeats_is_removed_also_with_a_proxy(clock: Clock) -> None:
    registry = Registry(lease_s=5, watched_lease_s=20, clock=clock, first_version=0)
    registry.report(ProxyState("p", "n", "127.0.0.1:9000"))
    registry.register(Replica("app", "D", ("t.T",), Endpoint("a", "127.0.0.1", 4000, node_id="n")))
    for now in range(1, 20):
        clock.now = now
        registry.renew_proxy("p")
        assert registry.expire() == ()
    clock.now = 20
    assert registry.expire() == ("a",)


def test_a_pause_of_the_controller_extends_all_leases(clock: Clock) -> None:
    registry = Registry(lease_s=5, pause_s=2, clock=clock, first_version=0)
    registry.register(replica("a"))
    registry.report(ProxyState("p", "n", "127.0.0.1:9000"))
    clock.now = 60
    assert registry.expire() == ()
    assert len(registry.proxies) == 1
    clock.now = 62
    assert registry.expire() == ()
    clock.now = 64
    registry.expire()
    clock.now = 65
    assert registry.expire() == ("a",), "the pause extends the lease once"
    assert registry.proxies == ()


def test_the_snapshot_does_not_depend_on_the_order_of_events(clock: Clock) -> None:
    events = [replica("1", "z", "E"), replica("2", "a", "D"), replica("3", "a", "C"), replica("0", "z", "E")]
    snapshots = set()
    for order in (events, events[::-1]):
        registry = Registry(lease_s=5, clock=clock, first_version=0)
        for event in order:
            registry.register(event)
        snapshots.add(registry.snapshot.applications)
    assert len(snapshots) == 1


def test_a_replica_without_heartbeats_is_removed(registry: Registry, clock: Clock) -> None:
    registry.register(replica("a"))
    registry.register(replica("b"))
    clock.now = 4
    assert registry.renew("a")
    assert registry.expire() == ()
    clock.now = 5
    assert registry.expire() == ("b",)
    assert endpoints(registry) == ["a"]
    assert not registry.renew("b"), "it must register again"


def test_an_application_without_replicas_stays_until_it_is_removed(registry: Registry) -> None:
    registry.register(replica("a"))
    registry.deregister("a")
    assert registry.snapshot.applications == (Application("app", (Deployment("D", ("t.T",)),)),)
    assert registry.without_replicas() == (("app", "D"),)
    registry.register(replica("b"))
    registry.remove_deployments([("app", "D")])
    assert endpoints(registry) == ["b"], "one that has a replica stays"
    registry.deregister("b")
    registry.remove_deployments([("app", "D"), ("other", "D")])
    assert registry.snapshot.applications == ()


def names(registry: Registry) -> list[str]:
    return [deployment.name for known in registry.snapshot.applications for deployment in known.deployments]


@pytest.mark.parametrize(("old", "new"), [("A", "B"), ("B", "A")])
def test_a_renamed_deployment_gets_calls_under_its_new_name(registry: Registry, old: str, new: str) -> None:
    registry.register(replica("1", deployment=old))
    registry.register(replica("2", deployment=new))
    assert names(registry) == ["A", "B"]
    registry.deregister("1")
    assert (names(registry), endpoints(registry)) == ([new], ["2"])


@pytest.mark.parametrize(("old", "new"), [("A", "B"), ("B", "A")])
def test_the_old_name_gets_calls_until_the_new_one_has_a_replica(registry: Registry, old: str, new: str) -> None:
    registry.register(replica("1", deployment=old))
    registry.announce("app", [(Deployment(new, ("t.T",), max_waiting=1), b"")])
    assert names(registry) == [old, new], "the first of two deployments with one service gets the calls"
    registry.deregister("1")
    assert names(registry) == [new]


def test_a_deployment_removed_by_an_update_is_removed_and_the_others_stay(registry: Registry) -> None:
    registry.register(replica("1", deployment="A"))
    registry.register(replace(replica("2", deployment="B"), services=("t.U",)))
    registry.deregister("1")
    assert sorted(names(registry)) == ["A", "B"], "its replicas may come back"
    registry.remove_deployments([("app", "A"), ("app", "B")])
    assert names(registry) == ["B"]


def test_a_deleted_application_is_removed_with_its_dead_replicas(registry: Registry) -> None:
    registry.register(replica("dead"))
    registry.register(replica("other", "b"))
    registry.delete_application("app")
    registry.delete_application("app")
    assert [application.name for application in registry.snapshot.applications] == ["b"]
    assert not registry.renew("dead")


def test_a_new_controller_adopts_the_table_of_a_proxy(registry: Registry, clock: Clock) -> None:
    held = Snapshot(99, (Application("app", (Deployment("D", ("t.T",), (Endpoint("old", "127.0.0.1", 1),)),)),))
    registry.register(replica("new"))
    registry.adopt(held)
    assert endpoints(registry) == ["new", "old"]
    assert registry.snapshot.version > 99
    clock.now = 5
    registry.register(replica("new"))
    registry.expire()
    assert endpoints(registry) == ["new"], "the replica without a heartbeat is removed"


def test_adopting_an_empty_table_still_raises_the_version(registry: Registry) -> None:
    registry.adopt(Snapshot(99))
    assert registry.snapshot.version == 100, "version 99 is the table of an earlier controller"
    registry.register(replica("a"))
    assert registry.snapshot.version == 101


def test_a_version_is_acknowledged_by_every_proxy_without_a_problem(registry: Registry, clock: Clock) -> None:
    assert registry.is_acknowledged(11), "without proxies there is nothing to wait for"
    registry.report(ProxyState("p1", "n1", "127.0.0.1:9000", version=11))
    registry.report(ProxyState("p2", "n2", "127.0.0.1:9000", version=10))
    assert not registry.is_acknowledged(11)
    registry.report(ProxyState("p2", "n2", "127.0.0.1:9000", version=10, problem="no Envoy"))
    assert registry.is_acknowledged(11)
    registry.report(ProxyState("p3", "n2", "127.0.0.1:9000", version=10))
    assert [proxy.proxy_id for proxy in registry.proxies] == ["p1", "p3"], "one per node"
    clock.now = 5
    registry.expire()
    assert registry.proxies == ()


def test_a_deployment_is_derived_from_its_replicas(registry: Registry) -> None:
    announced = Replica("app", "D", ("t.T", "t.U"), E, "", ("/t.T/Get",))
    registry.register(announced)
    (deployment,) = registry.snapshot.applications[0].deployments
    assert deployment == Deployment("D", ("t.T", "t.U"), (E,), "", ("/t.T/Get",))
    other = Registry(lease_s=5, first_version=1)
    other.adopt(registry.snapshot)
    assert other.snapshot.applications == registry.snapshot.applications
    registry.deregister("e")
    (deployment,) = registry.snapshot.applications[0].deployments
    assert deployment == Deployment("D", ("t.T", "t.U"), (), "", ("/t.T/Get",))


def test_unlisted_services_are_not_in_the_snapshot(clock: Clock) -> None:
    registry = Registry(
        lease_s=5, clock=clock, first_version=1, options=GrpcOptions(grpc_servicer_functions=("t.U", "t.V"))
    )
    registry.register(Replica("app", "D", ("t.T", "t.U"), E))
    assert registry.snapshot.listed_services_only
    assert registry.snapshot.applications[0].deployments[0].services == ("t.U",)


def test_a_proxy_with_a_rejected_application_still_acknowledges(registry: Registry) -> None:
    registry.report(
        ProxyState("p", "n", "a", version=7, rejected_applications=(RejectedApplication("bad", "Envoy rejected it"),))
    )
    assert registry.is_acknowledged(7)
    assert not registry.is_acknowledged(8), "it serves, so it must acknowledge"


def test_descriptors_are_kept_while_a_deployment_uses_them(registry: Registry) -> None:
    old, new = (replace(replica(name), descriptors=name) for name in ("old", "new"))
    registry.register(old, b"OLD")
    assert (registry.descriptors("old"), registry.descriptors("new")) == (b"OLD", None)
    registry.register(new, b"NEW")
    assert (registry.descriptors("old"), registry.descriptors("new")) == (None, b"NEW")
    assert registry.snapshot.applications[0].deployments[0].descriptors == "new"


def described(registry: Registry) -> str:
    return registry.snapshot.applications[0].deployments[0].descriptors


def test_a_deployment_is_described_by_its_new_version_while_replicas_of_both_renew(registry: Registry) -> None:
    old, new = (replace(replica(name), descriptors=name, services=(name,)) for name in ("old", "new"))
    registry.register(old, b"OLD")
    registry.register(new, b"NEW")
    version = registry.snapshot.version
    assert [registry.renew(name) for name in ("old", "new", "old")] == [True] * 3, "nobody needs the old descriptors"
    assert (described(registry), registry.snapshot.version) == ("new", version)


def test_a_version_that_has_left_describes_the_deployment_no_longer(registry: Registry, clock: Clock) -> None:
    old, new = (replace(replica(name), descriptors=name, services=(name,)) for name in ("old", "new"))
    registry.register(new, b"NEW")
    registry.register(old, b"OLD")  # late, or the replica of an update that is rolled back
    registry.register(replace(old, endpoint=Endpoint("older", "127.0.0.1", 1)), b"OLD")
    registry.deregister("older")
    assert described(registry) == "old", "one of its replicas is left"
    registry.deregister("old")
    (deployment,) = registry.snapshot.applications[0].deployments
    assert (deployment.descriptors, deployment.services) == ("new", ("new",))
    assert not registry.renew("new"), "its descriptors were forgotten"
    registry.register(new, b"NEW")
    assert (registry.renew("new"), registry.descriptors("new"), registry.descriptors("old")) == (True, b"NEW", None)

    registry.register(old, b"OLD")
    clock.now = 4
    assert registry.renew("new")
    clock.now = 5
    assert registry.expire() == ("old",)
    assert described(registry) == "new"


def test_after_a_restart_a_replica_registers_its_descriptors_again(registry: Registry) -> None:
    registry.adopt(Snapshot(99, (Application("app", (Deployment("D", ("t.T",), (E,), "digest"),)),)))
    assert endpoints(registry) == ["e"]
    assert not registry.renew("e"), "the replica is known, but its descriptors are not"
    registry.register(replace(replica("e"), descriptors="digest"), b"FILES")
    assert registry.renew("e")
    assert registry.descriptors("digest") == b"FILES"


def test_after_a_restart_one_replica_is_asked_for_the_descriptors_of_all(registry: Registry, clock: Clock) -> None:
    adopted = tuple(Endpoint(name, "127.0.0.1", port) for port, name in enumerate("efg", 1))
    registry.adopt(Snapshot(99, (Application("app", (Deployment("D", ("t.T",), adopted, "digest"),)),)))
    assert [registry.renew(name) for name in "efg"] == [False, True, True]
    assert not registry.renew("e"), "it has not registered yet"
    registry.deregister("e")
    assert [registry.renew(name) for name in "fg"] == [False, True], "it is gone"
    clock.now = 5
    assert not registry.renew("g"), "f does not register"
    registry.register(Replica("app", "D", ("t.T",), adopted[2], "digest"), b"FILES")
    assert registry.renew("f")


def test_a_deployment_without_a_first_replica_can_be_announced(registry: Registry) -> None:
    scaled_to_zero = Deployment("D", ("t.T",), descriptors="d1", max_waiting=7)
    registry.announce("app", [(scaled_to_zero, b"files")])
    assert registry.snapshot.applications == (Application("app", (scaled_to_zero,)),)
    assert scaled_to_zero.holds_calls
    assert registry.descriptors("d1") == b"files"
    registry.register(replace(replica("a"), max_waiting=9))
    (known,) = registry.snapshot.applications[0].deployments
    assert (known.max_waiting, known.holds_calls) == (9, False), "a replica overrides the announcement"
    registry.deregister("a")
    assert registry.snapshot.applications[0].deployments[0].holds_calls

    successor = Registry(lease_s=5, first_version=1)
    successor.adopt(registry.snapshot)
    assert successor.snapshot.applications == registry.snapshot.applications, "a restarted controller knows it too"

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


def test_replicas_come_and_go_and_each_change_is_a_version(registry: Registry) -> None:
    registry.register(replica("b"))
    registry.register(replica("a"))
    assert (registry.snapshot.version, endpoints(registry)) == (12, ["a", "b"])
    registry.register(replica("a"))
    assert registry.snapshot.version == 12, "nothing changed"
    registry.deregister("b")
    registry.deregister("b")
    assert (registry.snapshot.version, endpoints(registry)) == (13, ["a"])


def test_time_in_which_the_controller_itself_was_stopped_counts_against_no_lease(clock: Clock) -> None:
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
    assert registry.expire() == ("a",), "the pause was added once, and silence counts again"
    assert registry.proxies == ()


def test_the_snapshot_is_sorted_whatever_the_order_of_events(clock: Clock) -> None:
    events = [replica("1", "z", "E"), replica("2", "a", "D"), replica("3", "a", "C"), replica("0", "z", "E")]
    snapshots = set()
    for order in (events, events[::-1]):
        registry = Registry(lease_s=5, clock=clock, first_version=0)
        for event in order:
            registry.register(event)
        snapshots.add(registry.snapshot.applications)
    assert len(snapshots) == 1


def test_a_silent_replica_is_forgotten(registry: Registry, clock: Clock) -> None:
    registry.register(replica("a"))
    registry.register(replica("b"))
    clock.now = 4
    assert registry.renew("a")
    assert registry.expire() == ()
    clock.now = 5
    assert registry.expire() == ("b",)
    assert endpoints(registry) == ["a"]
    assert not registry.renew("b"), "it must register again"


def test_an_application_without_replicas_stays_known_until_it_is_forgotten(registry: Registry) -> None:
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
def test_a_deployment_that_an_update_has_renamed_is_routed_to_by_its_new_name(
    registry: Registry, old: str, new: str
) -> None:
    registry.register(replica("1", deployment=old))
    registry.register(replica("2", deployment=new))
    assert names(registry) == ["A", "B"]
    registry.deregister("1")
    assert (names(registry), endpoints(registry)) == ([new], ["2"])


@pytest.mark.parametrize(("old", "new"), [("A", "B"), ("B", "A")])
def test_while_the_new_name_has_no_replica_the_old_one_is_routed_to(registry: Registry, old: str, new: str) -> None:
    registry.register(replica("1", deployment=old))
    registry.announce("app", [(Deployment(new, ("t.T",), max_waiting=1), b"")])
    assert names(registry) == [old, new], "of two with one service the first is routed to"
    registry.deregister("1")
    assert names(registry) == [new]


def test_a_deployment_that_an_update_has_left_out_is_forgotten_and_the_others_stay(registry: Registry) -> None:
    registry.register(replica("1", deployment="A"))
    registry.register(replace(replica("2", deployment="B"), services=("t.U",)))
    registry.deregister("1")
    assert sorted(names(registry)) == ["A", "B"], "its replicas may come again"
    registry.remove_deployments([("app", "A"), ("app", "B")])
    assert names(registry) == ["B"]


def test_a_deleted_application_goes_with_replicas_that_died_silently(registry: Registry) -> None:
    registry.register(replica("dead"))
    registry.register(replica("other", "b"))
    registry.delete_application("app")
    registry.delete_application("app")
    assert [application.name for application in registry.snapshot.applications] == ["b"]
    assert not registry.renew("dead")


def test_a_new_controller_adopts_what_a_proxy_holds(registry: Registry, clock: Clock) -> None:
    held = Snapshot(99, (Application("app", (Deployment("D", ("t.T",), (Endpoint("old", "127.0.0.1", 1),)),)),))
    registry.register(replica("new"))
    registry.adopt(held)
    assert endpoints(registry) == ["new", "old"]
    assert registry.snapshot.version > 99
    clock.now = 5
    registry.register(replica("new"))
    registry.expire()
    assert endpoints(registry) == ["new"], "what did not report is gone"


def test_adopting_nothing_new_still_goes_on_above_its_version(registry: Registry) -> None:
    registry.adopt(Snapshot(99))
    registry.register(replica("a"))
    assert registry.snapshot.version == 100


def test_acknowledged_means_by_every_proxy_that_can_serve(registry: Registry, clock: Clock) -> None:
    assert registry.is_acknowledged(11), "there is nobody to wait for"
    registry.report(ProxyState("p1", "n1", "127.0.0.1:9000", version=11))
    registry.report(ProxyState("p2", "n2", "127.0.0.1:9000", version=10))
    assert not registry.is_acknowledged(11)
    registry.report(ProxyState("p2", "n2", "127.0.0.1:9000", version=10, problem="no Envoy"))
    assert registry.is_acknowledged(11)
    registry.report(ProxyState("p3", "n2", "127.0.0.1:9000", version=10))
    assert [proxy.proxy_id for proxy in registry.proxies] == ["p1", "p3"], "one a node"
    clock.now = 5
    registry.expire()
    assert registry.proxies == ()


def test_a_deployment_is_what_its_replicas_announce(registry: Registry) -> None:
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


def test_services_that_are_not_listed_are_not_in_the_table(clock: Clock) -> None:
    registry = Registry(
        lease_s=5, clock=clock, first_version=1, options=GrpcOptions(grpc_servicer_functions=("t.U", "t.V"))
    )
    registry.register(Replica("app", "D", ("t.T", "t.U"), E))
    assert registry.snapshot.listed_services_only
    assert registry.snapshot.applications[0].deployments[0].services == ("t.U",)


def test_a_proxy_whose_envoy_refuses_an_application_counts_for_the_others(registry: Registry) -> None:
    registry.report(
        ProxyState("p", "n", "a", version=7, rejected_applications=(RejectedApplication("bad", "Envoy rejected it"),))
    )
    assert registry.is_acknowledged(7)
    assert not registry.is_acknowledged(8), "it serves, so it is waited for"


def test_descriptors_are_kept_while_a_deployment_announces_them(registry: Registry) -> None:
    old, new = (replace(replica(name), descriptors=name) for name in ("old", "new"))
    registry.register(old, b"OLD")
    assert (registry.descriptors("old"), registry.descriptors("new")) == (b"OLD", None)
    registry.register(new, b"NEW")
    assert (registry.descriptors("old"), registry.descriptors("new")) == (None, b"NEW")
    assert registry.snapshot.applications[0].deployments[0].descriptors == "new"


def test_after_a_restart_a_replica_announces_its_descriptors_again(registry: Registry) -> None:
    registry.adopt(Snapshot(99, (Application("app", (Deployment("D", ("t.T",), (E,), "digest"),)),)))
    assert endpoints(registry) == ["e"]
    assert not registry.renew("e"), "it is known, and what it announced is not"
    registry.register(replace(replica("e"), descriptors="digest"), b"FILES")
    assert registry.renew("e")
    assert registry.descriptors("digest") == b"FILES"


def test_a_deployment_that_never_had_a_replica_can_be_announced(registry: Registry) -> None:
    asleep = Deployment("D", ("t.T",), descriptors="d1", max_waiting=7)
    registry.announce("app", [(asleep, b"files")])
    assert registry.snapshot.applications == (Application("app", (asleep,)),)
    assert asleep.holds_calls
    assert registry.descriptors("d1") == b"files"
    registry.register(replace(replica("a"), max_waiting=9))
    (known,) = registry.snapshot.applications[0].deployments
    assert (known.max_waiting, known.holds_calls) == (9, False), "its replicas know best"
    registry.deregister("a")
    assert registry.snapshot.applications[0].deployments[0].holds_calls

    successor = Registry(lease_s=5, first_version=1)
    successor.adopt(registry.snapshot)
    assert successor.snapshot.applications == registry.snapshot.applications, "a restarted controller wakes it too"

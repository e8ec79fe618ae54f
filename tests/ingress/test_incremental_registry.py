"""A registry that builds only what a change affects has the table of one that builds everything."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sdk._ingress.registry import ProxyState, Registry, Replica
from sdk._xds.snapshot import Application, Deployment, Endpoint
from sdk.options import GrpcOptions

APPLICATIONS = st.sampled_from(["a", "b", "c"])
DEPLOYMENTS = st.sampled_from(["D", "E"])
SERVICES = st.sampled_from([("t.T",), ("t.U",), ("t.T", "t.U")])
REPLICAS = st.builds(
    Replica,
    APPLICATIONS,
    DEPLOYMENTS,
    SERVICES,
    st.builds(Endpoint, st.sampled_from(["r1", "r2", "r3", "r4"]), st.just("10.0.0.1"), st.sampled_from([1, 2])),
    descriptors=st.sampled_from(["", "x", "y"]),
    is_exposed=st.booleans(),
)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("register"), REPLICAS),
        st.tuples(st.just("deregister"), st.sampled_from(["r1", "r2", "r3", "r4", "other"])),
        st.tuples(
            st.just("announce"), APPLICATIONS, st.builds(Deployment, DEPLOYMENTS, SERVICES, descriptors=st.just("z"))
        ),
        st.tuples(st.just("delete_application"), APPLICATIONS),
        st.tuples(st.just("remove_deployments"), APPLICATIONS, DEPLOYMENTS),
        st.tuples(st.just("reconfigure"), st.sampled_from([None, ("t.T",)])),
    ),
    max_size=12,
)


class Whole:
    """The rules of the registry, applied to everything after each change."""

    def __init__(self) -> None:
        self.replicas: dict[str, Replica] = {}
        self.known: dict[str, dict[str, Deployment]] = {}
        self.listed: tuple[str, ...] | None = None

    def change(self, kind: str, *values: object) -> None:
        match kind, *values:
            case "register", Replica() as replica:
                self.replicas[replica.endpoint.replica_id] = replica
                self._add(replica.application, replica.as_deployment)
            case "deregister", replica_id:
                self.replicas.pop(str(replica_id), None)
            case "announce", str(application), Deployment() as deployment:
                self._add(application, deployment)
            case "delete_application", application:
                self.replicas = {key: r for key, r in self.replicas.items() if r.application != application}
                self.known.pop(str(application), None)
            case "remove_deployments", str(application), str(name):
                if not self._endpoints(application, name):
                    self.known.get(application, {}).pop(name, None)
            case "reconfigure", listed:
                assert listed is None or isinstance(listed, tuple)
                self.listed = listed
        for application, known in self.known.items():
            taken: set[str] = set()
            for name in reversed(list(known)):
                services = known[name].services
                if taken & set(services) and not self._endpoints(application, name):
                    del known[name]
                taken |= set(services)

    def _add(self, application: str, deployment: Deployment) -> None:
        self.known.setdefault(application, {}).pop(deployment.name, None)
        self.known[application][deployment.name] = deployment

    def _endpoints(self, application: str, name: str) -> tuple[Endpoint, ...]:
        found = (r.endpoint for r in self.replicas.values() if (r.application, r.deployment) == (application, name))
        return tuple(sorted(found))

    def table(self, *, is_exposed: bool) -> tuple[Application, ...]:
        table = []
        for application in sorted(self.known):
            members = []
            for name, deployment in sorted(self.known[application].items()):
                if deployment.is_exposed is is_exposed:
                    served = tuple(s for s in deployment.services if self.listed is None or s in self.listed)
                    hidden = tuple(s for s in deployment.services if s not in served)
                    endpoints = self._endpoints(application, name)
                    members.append(replace(deployment, services=served, hidden=hidden, endpoints=endpoints))
            members.sort(key=lambda member: not member.endpoints)
            if members:
                table.append(Application(application, tuple(members)))
        return tuple(table)


@given(CHANGES)
def test_a_table_built_by_changes_is_the_whole_table(changes: list[tuple[object, ...]]) -> None:
    registry, whole = Registry(lease_s=5, clock=lambda: 0.0, first_version=0), Whole()
    for kind, *values in changes:
        before = registry.snapshot
        match kind, *values:
            case "register", Replica() as replica:
                registry.register(replica, replica.descriptors.encode())
            case "announce", str(application), Deployment() as deployment:
                registry.announce(application, [(deployment, b"z")])
            case "remove_deployments", str(application), str(name):
                registry.remove_deployments([(application, name)])
            case "reconfigure", listed:
                assert listed is None or isinstance(listed, tuple)
                registry.reconfigure(GrpcOptions(grpc_servicer_functions=listed))
            case _:
                getattr(registry, str(kind))(*values)
        whole.change(str(kind), *values)
        after = registry.snapshot
        exposed, inner = whole.table(is_exposed=True), whole.table(is_exposed=False)
        assert (after.applications, after.inner) == (exposed, inner)
        assert after.version == before.version + (replace(after, version=before.version) != before)
        announced = {deployment.descriptors for known in (*exposed, *inner) for deployment in known.deployments}
        for digest in "xyz":
            assert (registry.descriptors(digest) == digest.encode()) is (digest in announced)


def test_a_change_shares_all_other_applications() -> None:
    registry = Registry(lease_s=5, first_version=0)
    for name in "ab":
        registry.register(Replica(name, "D", ("t.T",), Endpoint(name, "10.0.0.1", 1)))
    before = registry.snapshot.applications
    registry.deregister("b")
    after = registry.snapshot.applications
    assert after[0] is before[0]
    assert after[1] != before[1]


def test_a_replaced_proxy_of_a_node_may_report_again() -> None:
    registry = Registry(lease_s=5, first_version=0)
    for proxy_id in "aba":
        registry.report(ProxyState(proxy_id, "node", "127.0.0.1:9000"))
        assert [proxy.proxy_id for proxy in registry.proxies] == [proxy_id]
    registry.remove_proxy("a")
    registry.remove_proxy("a")
    assert registry.proxies == ()

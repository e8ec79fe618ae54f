"""The deployments of a routing table, kept by what differs, are those of the whole table."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sdk._ingress.deployments import Deployments
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot, differing_applications

# The same objects again and again, as in tables that share what has not changed.
POOL = {
    name: [
        Application(name, tuple(Deployment(each, ("t.T",), [Endpoint("r", "10.0.0.1", port)]) for each in deployments))
        for port in (1, 2)
        for deployments in ("D", "E", "DE")
    ]
    for name in "abcd"
}
TABLES = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5)).map(
        lambda chosen: tuple(POOL[name][number] for name, number in sorted(chosen.items()))
    ),
    max_size=6,
)


@given(TABLES)
def test_what_differs_is_found_whatever_both_share(tables: list[tuple[Application, ...]]) -> None:
    for before, after in pairwise(tables):
        old, new = ({app.name: app for app in table} for table in (before, after))
        expected = [(old.get(name), new.get(name)) for name in {**new, **old} if old.get(name) is not new.get(name)]
        assert list(differing_applications(before, after)) == sorted(
            expected, key=lambda pair: (pair[1] is None, (pair[1] or pair[0] or after[0]).name)
        )


@given(TABLES, TABLES)
def test_deployments_are_those_of_the_newest_table(
    exposed: list[tuple[Application, ...]], inner: list[tuple[Application, ...]]
) -> None:
    deployments = Deployments()
    for version, (outside, inside) in enumerate(zip(exposed, inner, strict=False), 1):
        # A deployment is in one of the two.
        names = {(app.name, each.name) for app in outside for each in app.deployments}
        hidden = tuple(
            Application(app.name, tuple(each for each in app.deployments if (app.name, each.name) not in names))
            for app in inside
        )
        whole = {(app.name, each.name): each for app in (*outside, *hidden) for each in app.deployments}
        before = dict(deployments.by_key)
        differing = deployments.take(Snapshot(version, outside, inner=hidden))
        assert deployments.by_key == whole
        assert differing == {
            key: before.get(key) for key in before.keys() | whole.keys() if before.get(key) != whole.get(key)
        }

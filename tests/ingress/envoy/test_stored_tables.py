"""The routing table on disk, for the next proxy actor."""

from __future__ import annotations

import dataclasses
import pickle
import pickletools
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from sdk._ingress.envoy import stored_tables
from sdk._ingress.envoy.stored_tables import StoredTables, TableStore, load_tables
from sdk._ingress.table_delta import DeploymentDelta, TableDelta
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot

R1, R2 = Endpoint("r1", "127.0.0.1", 4000), Endpoint("r2", "127.0.0.1", 4001)


def table(version: int, *endpoints: Endpoint) -> Snapshot:
    return Snapshot(version, (Application("app", (Deployment("D", ("t.T",), endpoints),)),))


def test_the_routing_table_is_stored_for_the_next_actor(tmp_path: Path) -> None:
    assert load_tables(tmp_path) is None
    TableStore(tmp_path).store(StoredTables(Snapshot(8), Snapshot(7)))
    assert load_tables(tmp_path) == StoredTables(Snapshot(8), Snapshot(7))


@pytest.mark.parametrize(
    "stored",
    [
        b"\x80\x04c" + b"sdk.ingress.survivor\nTable\n.",  # format 1: a pickle alone, of a class that has moved
        b"sdk-routing-table 999\nwhatever it holds",
    ],
    ids=["without a format number", "newer"],
)
def test_a_stored_routing_table_of_another_format_is_ignored(
    tmp_path: Path, stored: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    TableStore(tmp_path).store(StoredTables(Snapshot(8), Snapshot(7)))
    (path,) = tmp_path.iterdir()
    path.write_bytes(stored)
    assert load_tables(tmp_path) is None
    assert "ignoring the stored routing table" in caplog.text


def test_a_change_is_appended_and_the_file_is_written_again_when_it_has_doubled(tmp_path: Path) -> None:
    store, many = TableStore(tmp_path), tuple(Endpoint(f"r{n}", "10.0.0.1", n) for n in range(1, 300))
    sizes = []
    for version in range(1, 100):
        tables = table(version, *many[version % 2 :])
        store.store(StoredTables(tables, tables))
        (path,) = tmp_path.iterdir()
        sizes.append(path.stat().st_size)
        assert load_tables(tmp_path) == StoredTables(tables, tables)
    grown = [after - before for before, after in pairwise(sizes)]
    assert 0 < grown[0] < 1_000
    assert max(sizes) < 2.1 * sizes[0]
    assert any(size < 0 for size in grown)


def test_what_envoy_rejected_is_stored_apart(tmp_path: Path) -> None:
    store = TableStore(tmp_path)
    for tables in (
        StoredTables(table(1, R1), table(1, R1)),
        StoredTables(table(2, R1), table(2, R1, R2)),
        StoredTables(replace(table(3, R1), route_by_service=True), replace(table(3, R2), route_by_service=True)),
        StoredTables(table(4, R2), table(4, R2)),
    ):
        store.store(tables)
        assert load_tables(tmp_path) == tables


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_record_that_was_not_written_to_its_end_is_ignored(tmp_path: Path, cut: int) -> None:
    store, before = TableStore(tmp_path), StoredTables(table(1, R1), table(1, R1))
    store.store(before)
    (path,) = tmp_path.iterdir()
    size = path.stat().st_size
    store.store(StoredTables(table(2, R1, R2), table(2, R1, R2)))
    path.write_bytes(path.read_bytes()[: size + cut if cut > 0 else cut])
    assert load_tables(tmp_path) == before
    after = StoredTables(table(3, R2), table(3, R2))
    TableStore(tmp_path).store(after)
    assert load_tables(tmp_path) == after, "the next actor begins with a whole table"


def test_the_format_of_the_stored_table_has_not_changed_without_a_new_number() -> None:
    tables = StoredTables(table(1, R1), table(1, R1))
    stored = pickle.dumps(tables, protocol=2)
    classes = {argument for opcode, argument, _ in pickletools.genops(stored) if opcode.name == "GLOBAL"}
    counted = (Snapshot, Application, Deployment, TableDelta, DeploymentDelta)
    fields = {cls.__name__: len(dataclasses.fields(cls)) for cls in counted}
    assert stored_tables._TABLE_FORMAT == b"sdk-routing-table 6", "update the numbers below, too"
    assert {name for name in classes if name.startswith("sdk")} == {
        "sdk._ingress.envoy.stored_tables StoredTables",
        "sdk._xds.endpoints _load",
        "sdk._xds.snapshot Application",
        "sdk._xds.snapshot Deployment",
        "sdk._xds.snapshot Snapshot",
    }
    assert fields == {"Snapshot": 7, "Application": 2, "Deployment": 10, "TableDelta": 5, "DeploymentDelta": 3}
    assert len(Endpoint._fields) == 5

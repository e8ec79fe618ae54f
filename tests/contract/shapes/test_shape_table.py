"""The table of class shapes is what mypy, pyright, `sdk check` and real calls say of them now."""

from __future__ import annotations

import pytest

from tests.contract.shapes.shape_table import Row, documented, rows, tables

pytestmark = pytest.mark.timeout(600)  # a first run of mypy analyses all of gRPC


@pytest.fixture(scope="module")
def found() -> list[Row]:
    return rows()


def test_the_table_is_up_to_date(found: list[Row]) -> None:
    current = tables(found)
    assert current == {heading: table for heading, table in documented().items() if heading in current}


def test_a_difference_has_a_reason_and_nothing_else_has(found: list[Row]) -> None:
    assert [row for row in found if row.agrees == bool(row.shape.why)] == []


def test_there_are_more_than_100_shapes(found: list[Row]) -> None:
    assert len(found) > 100
    assert {row.call for row in found} >= {"serves", "INTERNAL"}


def test_what_is_refused_without_a_reason_fails(found: list[Row]) -> None:
    """No check refuses what serves, unless the row says why."""
    assert [row for row in found if row.sdk != "fits" and row.call == "serves" and not row.shape.why] == []

"""The calls of the last seconds, from one reading after another."""

from __future__ import annotations

from sdk._figures.figures import REQUESTS, Reading
from sdk._figures.recent import RecentCalls

CALLS = ("node", REQUESTS, frozenset({("application", "a"), ("method", "/a.B/C"), ("status_code", "OK")}))


def figures_at(*times: float) -> list[tuple[float, float] | None]:
    """Return seconds and calls a second after readings at these times, of one call a second."""
    readings = iter([Reading(at, {CALLS: at}, frozenset({"node"})) for at in times])
    recent = RecentCalls(lambda: next(readings))
    found = [recent.figures() for _ in times]
    return [each and (each.seconds, each.methods[0].calls_per_s) for each in found]


def test_they_are_of_the_last_twenty_seconds() -> None:
    assert figures_at(0, 10, 20, 30, 40) == [None, (10, 1), (20, 1), (20, 1), (20, 1)]


def test_a_display_that_nobody_has_looked_at_for_a_while_begins_again() -> None:
    assert figures_at(0, 10, 1000, 1010) == [None, (10, 1), None, (10, 1)]

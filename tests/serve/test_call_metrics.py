"""Histograms that represent many calls with few observations."""

from __future__ import annotations

from collections import Counter

from sdk._serve.call_metrics import BoundedHistogram

A, B = (("method", "A"),), (("method", "B"),)


def test_below_the_limit_each_call_is_one_observation() -> None:
    histogram = BoundedHistogram([1, 2, 4], limit=10)
    found = Counter(histogram.observations({A: [2, 0, 1, 0], B: [0, 0, 0, 3]}))
    assert found == {(A, 0.5): 2, (A, 3.0): 1, (B, 8): 3}


def test_above_the_limit_all_series_are_thinned_alike() -> None:
    histogram = BoundedHistogram([1, 2], limit=100)
    found = Counter(histogram.observations({A: [9_000, 900, 90], B: [10, 0, 0]}))
    assert found == {(A, 0.5): 90, (A, 1.5): 9}


def test_rare_calls_are_carried_until_they_make_one_observation() -> None:
    histogram = BoundedHistogram([1, 2], limit=100)
    found: Counter[tuple[object, float]] = Counter()
    for _ in range(100):
        found.update(histogram.observations({A: [9_990, 0, 0], B: [0, 0, 10]}))
    assert found == {(A, 0.5): 9_990, (B, 4): 10}


def test_nothing_to_observe() -> None:
    assert list(BoundedHistogram([1, 2]).observations({})) == []
    assert list(BoundedHistogram([1, 2]).observations({A: [0, 0, 0]})) == []

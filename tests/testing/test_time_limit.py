"""The time limit of each test, which one thread watches."""

from __future__ import annotations

import threading

from tests.support.loops import PATIENCE_S
from tests.support.time_limit import TimeLimit

_LONG_S = 100 * PATIENCE_S


def test_a_limit_ends_though_the_one_before_it_was_longer() -> None:
    limit, ends = TimeLimit(), threading.Event()
    for _ in range(2):
        limit.set(_LONG_S, lambda: None)
        limit.lift()
        limit.set(0.001, ends.set)
        assert ends.wait(PATIENCE_S)
        ends.clear()


def test_a_lifted_limit_does_not_end() -> None:
    limit, ends, later = TimeLimit(), threading.Event(), threading.Event()
    limit.set(0, ends.set)
    assert ends.wait(PATIENCE_S)
    ends.clear()
    limit.set(_LONG_S, ends.set)
    limit.lift()
    limit.set(0.001, later.set)
    assert later.wait(PATIENCE_S)
    assert not ends.is_set()

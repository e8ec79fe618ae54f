"""Waiting without a sleep of fixed length, and deadlines that expire in a handler however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tests.support.loops import PATIENCE_S

#: Seconds between two calls of one thread under whose calls something changes. Without a pause, the callers take the
#: cores that the change needs.
PACE_S = 0.01


def growing_deadlines() -> Iterator[float]:
    """Yield deadlines in seconds, each longer, until one lets the handler begin.

    A call with a fixed short deadline may expire on a busy machine before it reaches its handler. A test makes its
    call with each of these, and stops when the handler has begun.

    Raises:
        AssertionError: No deadline was long enough.
    """
    yield from (0.3, 1.0, 4.0, 16.0)
    raise AssertionError("no handler began within 16 s")


def happens(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    """Return True as soon as a condition holds in another thread or process, and False if it does not in time."""
    began, pause = time.monotonic(), 0.003
    while not condition():
        waited = time.monotonic() - began
        if waited > seconds:
            return False
        time.sleep(pause)
        # Most hold within milliseconds. Those that take seconds often ask Ray Serve, which costs 7 ms in its processes,
        # and some of these hold for a short time only.
        pause = min(2 * pause, 0.05 + waited / 20, 0.2)
    return True


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait until a condition holds in another thread or process."""
    assert happens(condition, seconds), f"not within {seconds:g} s"

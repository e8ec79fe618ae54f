"""Deadlines for calls that must expire while their handler runs, however slow the machine is."""

from __future__ import annotations

from collections.abc import Iterator


def growing_deadlines() -> Iterator[float]:
    """Yield deadlines in seconds, each longer, until one lets the handler begin.

    A call with a fixed short deadline may expire on a busy machine before it reaches its handler. A test makes its
    call with each of these, and stops when the handler has begun.

    Raises:
        AssertionError: No deadline was long enough.
    """
    yield from (0.3, 1.0, 4.0, 16.0)
    raise AssertionError("no handler began within 16 s")

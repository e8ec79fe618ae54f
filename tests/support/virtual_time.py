"""An event loop whose time is not the clock's: when nothing is left to do, it is the time of the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tests.support import loops

T = TypeVar("T")

#: Run an async test on a `VirtualLoop`.
in_virtual_time = pytest.mark.asyncio(loop_factories=["virtual"])


class _Selector(selectors.DefaultSelector):
    """Waits for no file: the seconds that it would have waited are added up."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing is left to do, and nobody will end this: a test that would hang"
            self.passed += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop for code that has no files and no threads, only timers."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._virtual.passed

    def pass_time(self, seconds: float) -> None:
        """Put the clock forward; timers that are due run at the next turn."""
        self._virtual.passed += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on such a loop; sleeping takes no time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loops.close(loop)

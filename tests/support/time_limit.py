"""The time limit of tests, watched by one thread of the process; pytest-timeout starts one for each test."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class TimeLimit:
    """Calls a function when a time has passed, unless it is lifted before."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ends = self._wakes = math.inf
        self._on_end: Callable[[], object] = lambda: None
        threading.Thread(target=self._watch, name="time limit", daemon=True).start()

    def set(self, seconds: float, on_end: Callable[[], object]) -> None:
        """Replace the limit by one that ends in a number of seconds."""
        with self._changed:
            self._ends, self._on_end = time.monotonic() + seconds, on_end
            if self._ends < self._wakes:  # otherwise the thread sees it when it wakes up for one that was lifted
                self._changed.notify()

    def lift(self) -> None:
        """Remove the limit."""
        with self._changed:
            self._ends = math.inf

    def _watch(self) -> None:
        while True:
            with self._changed:
                while (left := self._ends - time.monotonic()) > 0:
                    self._wakes = self._ends
                    self._changed.wait(None if left == math.inf else left)
                on_end = self._on_end
                self._ends = math.inf
            on_end()

"""Ends the process when a test takes too long, with one thread for all tests; pytest-timeout starts one for each.

For a short test, to start and join a thread costs as much as everything else together.
"""

from __future__ import annotations

import math
import threading
from time import monotonic

import pytest
import pytest_timeout


class Watchdog:
    """A thread that sleeps until a deadline, and then on until that of the test that runs now."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._test: tuple[pytest.Item, pytest_timeout.Settings] | None = None
        self._deadline = self._wakes = math.inf
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def begin(self, item: pytest.Item, settings: pytest_timeout.Settings) -> None:
        """Watch a test from now on."""
        with self._change:
            self._test, self._deadline = (item, settings), monotonic() + settings.timeout
            if self._deadline < self._wakes:
                self._change.notify()

    def end(self) -> None:
        """Watch no test."""
        self._test = None

    def _watch(self) -> None:
        with self._change:
            while True:
                if self._test is not None and self._deadline <= monotonic():
                    pytest_timeout.timeout_timer(*self._test)  # it returns only under a debugger
                    self._test = None
                self._wakes = math.inf if self._test is None else self._deadline
                self._change.wait(None if self._wakes == math.inf else self._wakes - monotonic())

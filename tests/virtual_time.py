"""An event loop whose time is not the clock's: when nothing is left to do, it is the time of the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: How often a task may swallow its cancellation.
_CANCELLATIONS = 10


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
        close(loop)


def close(loop: asyncio.AbstractEventLoop) -> None:
    """End what still runs on a loop, and close it.

    A task of a test that has failed would else be collected during another test, find its loop closed, and make that
    other test fail.

    Raises:
        AssertionError: A task swallows every cancellation.
    """
    try:
        for _ in range(_CANCELLATIONS):
            tasks = asyncio.all_tasks(loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            loop.run_until_complete(_turns(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert not asyncio.all_tasks(loop), "tasks that can't be cancelled"
    finally:
        loop.close()


async def _turns(tasks: set[asyncio.Task[Any]]) -> None:
    """Let tasks take their cancellation, until they have ended or swallowed it."""
    for _ in range(100):
        if all(task.done() for task in tasks):
            return
        await asyncio.sleep(0)

"""Event loops of tests: what a test leaves on one is ended there, so that one that fails breaks no other."""

from __future__ import annotations

import asyncio

import pytest

#: Seconds that something may take which comes at once on an idle machine; only a test that fails waits so long.
PATIENCE_S = 60

#: The loop that replicas have, and that most tests can do without.
on_uvloop = pytest.mark.asyncio(loop_factories=["uvloop"])

# How often a task may swallow its cancellation, and the seconds that it has to end after each.
_CANCELLATIONS, _END_S = 10, 1.0


def end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs on a loop, until it has ended.

    Otherwise it would be collected during another test, find its loop closed, and fail that test.

    Raises:
        AssertionError: A task swallows every cancellation.
    """
    for _ in range(_CANCELLATIONS):
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=_END_S))
    tasks = asyncio.all_tasks(loop)
    assert not tasks, f"they swallow every cancellation: {tasks}"


def close(loop: asyncio.AbstractEventLoop) -> None:
    """End what still runs on a loop, and close it."""
    try:
        end_tasks(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()

"""Owner leases and absence, without Ray."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray

from sdk._ingress.owners import Absence, OwnerLeases


def test_only_a_long_absence_counts() -> None:
    absence = Absence(8.0)
    seen = [(False, 0.0), (False, 7.0), (True, 7.5), (False, 9.0), (False, 16.9), (False, 17.0)]
    assert [absence.update(is_there, now) for is_there, now in seen] == [False, False, False, False, False, True]


async def outcome(error: Exception | None) -> list[str]:
    ended: list[str] = []
    held: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if error is None:
        held.set_result(None)
    else:
        held.set_exception(error)
    await OwnerLeases().call_on_owner_death(held, lambda: ended.append("ended"))
    return ended


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (None, []),
        (ray.exceptions.OwnerDiedError("00", None, ""), ["ended"]),
        (ray.exceptions.ActorDiedError(), []),
    ],
)
async def test_the_function_is_called_only_if_the_owner_dies(error: Exception | None, ended: list[str]) -> None:
    assert await outcome(error) == ended


async def test_hold_returns_after_release() -> None:
    async def hold_and_release() -> bool:
        leases = OwnerLeases()
        held = asyncio.create_task(leases.hold("key"))
        await asyncio.sleep(0)
        was_held = not held.done()
        leases.release("key")
        await asyncio.wait_for(held, 1)
        return was_held

    assert await hold_and_release()


async def test_hold_returns_at_once_if_it_is_released_before() -> None:
    leases = OwnerLeases()
    leases.release("key")
    await asyncio.wait_for(leases.hold("key"), 1)

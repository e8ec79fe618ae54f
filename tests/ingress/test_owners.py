"""What ends with a command: state only, no Ray."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray

from sdk._ingress.owners import Absence, Ties


def test_a_short_absence_means_nothing() -> None:
    absence = Absence(8.0)
    seen = [(False, 0.0), (False, 7.0), (True, 7.5), (False, 9.0), (False, 16.9), (False, 17.0)]
    assert [absence.note(is_there, now) for is_there, now in seen] == [False, False, False, False, False, True]


async def outcome(error: Exception | None) -> list[str]:
    ended: list[str] = []
    held: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if error is None:
        held.set_result(None)
    else:
        held.set_exception(error)
    await Ties().end_with_owner(held, lambda: ended.append("ended"))
    return ended


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (None, []),
        (ray.exceptions.OwnerDiedError("00", None, ""), ["ended"]),
        (ray.exceptions.ActorDiedError(), []),
    ],
)
async def test_only_the_death_of_the_command_ends_what_it_served(error: Exception | None, ended: list[str]) -> None:
    assert await outcome(error) == ended


async def test_a_command_that_lets_go_is_held_no_longer() -> None:
    async def hold_and_release() -> bool:
        ties = Ties()
        held = asyncio.create_task(ties.hold("key"))
        await asyncio.sleep(0)
        was_held = not held.done()
        ties.release("key")
        await asyncio.wait_for(held, 1)
        return was_held

    assert await hold_and_release()


async def test_letting_go_may_come_first() -> None:
    ties = Ties()
    ties.release("key")
    await asyncio.wait_for(ties.hold("key"), 1)

"""Owner leases and absence, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import ray

from sdk._ingress.owners import Absence, OwnerLeases
from tests.support.loops import PATIENCE_S


def test_only_a_long_absence_counts() -> None:
    absence = Absence(8.0)
    seen = [(False, 0.0), (False, 7.0), (True, 7.5), (False, 9.0), (False, 16.9), (False, 17.0)]
    assert [absence.update(is_there, now) for is_there, now in seen] == [False, False, False, False, False, True]


DIED = ray.exceptions.OwnerDiedError("00", None, "")


async def outcome(leases: OwnerLeases, error: Exception | None, applications: Sequence[str] = ("shop",)) -> list[str]:
    """Return the names of the applications that end with the command."""
    ended: list[str] = []
    held: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if error is None:
        held.set_result(None)
    else:
        held.set_exception(error)
    await leases.call_on_owner_death("key", held, applications, ended.extend)
    return ended


@pytest.mark.parametrize(
    ("error", "ended"),
    [(None, []), (DIED, ["shop"]), (ray.exceptions.ActorDiedError(), [])],
    ids=["end", "death", "ray"],
)
async def test_applications_end_only_if_the_owner_dies(error: Exception | None, ended: list[str]) -> None:
    assert await outcome(OwnerLeases(), error) == ended


async def test_a_command_that_exits_right_after_its_release_did_not_die() -> None:
    leases = OwnerLeases()
    leases.release("key")
    assert await outcome(leases, DIED) == []
    assert await outcome(leases, DIED) == ["shop"], "a lease that ended leaves nothing behind"


async def test_applications_that_others_have_deployed_since_do_not_end_with_the_command() -> None:
    leases = OwnerLeases()
    leases.claim(["shop", "greeter", "store"], "key")
    leases.claim(["greeter"])
    leases.claim(["store"], "another command")
    assert leases.owned(["shop", "greeter", "store"], "key") == ("shop",)
    assert await outcome(leases, DIED, ["shop", "greeter", "store"]) == ["shop"]
    assert leases.owned(["shop", "greeter", "store"], "another command") == ("shop", "store")


async def test_after_a_restart_of_the_controller_all_are_the_command_s() -> None:
    assert OwnerLeases().owned(["shop", "greeter"], "key") == ("shop", "greeter")


async def test_hold_returns_after_release() -> None:
    leases = OwnerLeases()
    held = asyncio.create_task(leases.hold("key"))
    await asyncio.sleep(0)
    assert not held.done()
    leases.release("key")
    await held


async def test_hold_returns_at_once_if_it_is_released_before() -> None:
    leases = OwnerLeases()
    leases.release("key")
    await asyncio.wait_for(leases.hold("key"), PATIENCE_S)

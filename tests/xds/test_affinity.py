"""Calls with a model id stay on one replica, and move or spread if it is removed or overloaded."""

from __future__ import annotations

import asyncio
import time

from tests.support.envoy_rig import Rig, rig
from tests.support.loops import PATIENCE_S

GREET = "/demo.Greeter/SayHello"
# Which of them move depends on the ports of the replicas: about a seventh, and of so many never a third.
MODELS = tuple(map(str, range(100)))


async def publish(it: Rig, *replicas: str) -> None:
    await it.publish({"one": {"Greeter": (["demo.Greeter"], list(replicas))}})


async def answers(it: Rig, model: str) -> str:
    return await it.answers(GREET, ("application", "one"), ("multiplexed_model_id", model), timeout=10)


async def homes(it: Rig) -> dict[str, str]:
    return {model: await answers(it, model) for model in MODELS}


async def settled_homes(it: Rig) -> dict[str, str]:
    """Return the home of each model as soon as all replicas get calls: each does after its first health check."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := await homes(it)) != await homes(it) or set(found.values()) != set(it.upstreams):
        assert time.monotonic() < deadline, "not every replica gets calls"
    return found


async def until_homes_are(it: Rig, expected: dict[str, str]) -> None:
    """Wait until each model has its home again: a new address gets calls after its first health check."""
    deadline = time.monotonic() + PATIENCE_S
    while await homes(it) != expected:
        assert time.monotonic() < deadline, "the models have not moved back"


async def arrived(it: Rig, number: int) -> None:
    """Wait until this many calls have arrived at the replicas."""
    deadline = time.monotonic() + PATIENCE_S
    while sum(upstream.calls for upstream in it.upstreams.values()) < number:
        assert time.monotonic() < deadline, "a call has not arrived"
        await asyncio.sleep(0.001)


async def test_a_model_stays_on_its_replica() -> None:
    async with rig("a", "b", "c") as it:
        await publish(it, "a", "b", "c")
        before = await settled_homes(it)
        assert [await homes(it) for _ in range(2)] == [before, before]
        await it.upstreams["b"].only_on_a_unix_socket()
        await publish(it, "c", "b", "a")
        await until_homes_are(it, before)  # as the proxy of another node finds them, which connects over TCP
        assert {await answers(it, "") for _ in range(40)} == {"a", "b", "c"}, "an empty id counts as absent"


async def test_adding_or_removing_a_replica_moves_few_models() -> None:
    async with rig("a", "b", "c") as it:
        await publish(it, "a", "b", "c")
        before = await settled_homes(it)
        await publish(it, "a", "b")
        without = await homes(it)
        stayed = [before[model] == without[model] for model in MODELS if before[model] != "c"]
        assert stayed.count(False) < len(stayed) / 3
        assert set(without.values()) == {"a", "b"}
        await publish(it, "a", "b", "c")
        await until_homes_are(it, before)


async def test_a_hot_model_spreads_and_returns_when_its_load_drops() -> None:
    async with rig("a", "b", "c") as it:
        await publish(it, "a", "b", "c")
        await settled_homes(it)
        home = await answers(it, "hot")
        before = {name: upstream.calls for name, upstream in it.upstreams.items()}
        for upstream in it.upstreams.values():
            upstream.hold.clear()
        calls = []
        for number in range(1, 31):
            calls.append(asyncio.create_task(answers(it, "hot")))
            await arrived(it, number + sum(before.values()))
        shares = {name: upstream.calls - before[name] for name, upstream in it.upstreams.items()}
        for upstream in it.upstreams.values():
            upstream.hold.set()
        answered = await asyncio.gather(*calls)
        assert {name: answered.count(name) for name in shares} == shares
        assert all(share <= 14 for share in shares.values()), (
            f"nobody has much more than 125 % of the average: {shares}"
        )
        assert {await answers(it, "hot") for _ in range(10)} == {home}

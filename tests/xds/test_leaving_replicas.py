"""Each thread of Envoy closes its connections to a removed replica, which a leaving replica relies on."""

from __future__ import annotations

import asyncio
import time

from tests.support.envoy_rig import Upstream, rig
from tests.support.loops import PATIENCE_S

GREET = "/demo.Greeter/SayHello"


async def until_connections(upstream: Upstream, number: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while upstream.connections != number:
        assert time.monotonic() < deadline, f"{upstream.connections} connections, not {number}"
        await asyncio.sleep(0.01)


async def test_envoy_closes_connections_of_a_removed_replica_when_they_are_idle() -> None:
    async with rig("a", "b") as it:
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a", "b"])}})
        leaving = it.upstreams["b"]
        await asyncio.gather(*(it.answers(GREET) for _ in range(40)))
        leaving.hold.clear()
        wanted = leaving.calls + 3
        calls = []
        while leaving.calls < wanted:
            calls.append(asyncio.create_task(it.answers(GREET)))
            await asyncio.sleep(0.01)
        assert leaving.connections > 3, "some are idle"
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
        await until_connections(leaving, 3)
        leaving.hold.set()
        assert [await call for call in calls].count("b") == 3
        await until_connections(leaving, 0)

"""Clients that cancel many calls, honest and hostile, with a real Envoy.

Envoy's protections against a flood of resets (CVE-2023-44487) end the whole connection of an honest client.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from tests.support.envoy_rig import rig
from tests.support.raw_http2 import connect

if TYPE_CHECKING:
    from tests.support.envoy_rig import Apps

CALL, OTHER = "/demo.Greeter/SayHello", "/demo.Other/Do"
APPS: Apps = {"one": {"Greeter": (["demo.Greeter"], ["a"]), "Other": (["demo.Other"], ["b"])}}


async def test_cancelled_calls_do_not_end_the_other_calls_of_their_connection() -> None:
    async with rig("a", "b") as it:
        await it.publish(APPS)
        async with connect(it.port) as client:
            it.upstreams["a"].hold.clear()
            for _ in range(1500):
                client.cancel(client.start(CALL))
                await client.flush()
            await client.wait_answered(client.start(OTHER))
            assert not client.ended


async def test_calls_that_are_cancelled_while_they_are_answered_do_not_end_their_connection() -> None:
    async with rig("a", "b") as it:
        await it.publish(APPS)
        async with connect(it.port) as client:
            for _ in range(150):
                streams = [client.start(CALL) for _ in range(10)]
                for stream in streams:
                    await client.wait_answered(stream)
                    client.cancel(stream)
            await client.wait_answered(client.start(OTHER))


async def test_a_flood_of_calls_that_are_cancelled_at_once_costs_the_replicas_nothing() -> None:
    flood = 2_000
    async with rig("a", "b") as it:
        await it.publish(APPS)
        async with connect(it.port) as hostile, connect(it.port) as honest:
            await honest.wait_answered(honest.start(OTHER))
            it.process.send_signal(signal.SIGSTOP)  # so that the flood arrives in one go
            for _ in range(flood):
                hostile.cancel(hostile.start(CALL))
            await hostile.flush()
            it.process.send_signal(signal.SIGCONT)
            await honest.wait_answered(honest.start(OTHER))
            await hostile.wait_answered(hostile.start(OTHER))
        stats = await it.admin("/stats?filter=cluster.one%23Greeter.upstream_rq_pending_total")
        found = re.search(r"upstream_rq_pending_total: (\d+)", stats)
        assert found is not None
        assert int(found[1]) < flood / 2, "Envoy dropped the others before it routed them"

"""Costs of a client that cancels every call at once, with Envoy's own protections and with ours.

Run ``python -m tests.benchmarks.cancelled_calls``. It prints for each: whether the connection of that client stays, the
CPU time and the memory that it costs Envoy, and how many of the calls Envoy routed to a replica.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from sdk._xds import bootstrap
from tests.support.envoy_rig import Rig, rig
from tests.support.raw_http2 import RawConnection, connect

CALL, OTHER = "/demo.Greeter/SayHello", "/demo.Other/Do"
CANCELLED = 50_000
# Calls that are written in one go.
_BURST = 1_000


async def measure() -> str:
    """Return a line of results with the present bootstrap."""
    async with rig("a", "b") as it:
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"]), "Other": (["demo.Other"], ["b"])}})
        async with connect(it.port) as hostile:
            await hostile.wait_answered(hostile.start(OTHER))
            cpu_s, sent = _cpu_s(it), await _flood(hostile)
            last = hostile.start(OTHER)
            while not hostile.ended and last not in hostile.answered:
                await asyncio.sleep(0.01)
            cpu_us = (_cpu_s(it) - cpu_s) / sent * 1e6
            found = re.search(
                r"pending_total: (\d+)", await it.admin("/stats?filter=Greeter.upstream_rq_pending_total")
            )
            routed = int(found[1]) if found is not None else 0
            fate = "ended" if hostile.ended else "stays"
        costs = f"{cpu_us:.0f} µs of Envoy each, {_peak_mb(it)} MB at most, {routed:,} routed"
        return f"the connection {fate} after {sent:,} cancelled calls: {costs}"


async def _flood(client: RawConnection) -> int:
    sent = 0
    while sent < CANCELLED and not client.ended:
        for _ in range(_BURST):
            client.cancel(client.start(CALL))
        sent += _BURST
        try:
            await client.flush()
        except ConnectionError:
            break
        await asyncio.sleep(0)
    return sent


def _cpu_s(it: Rig) -> float:
    user, system = Path(f"/proc/{it.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100


def _peak_mb(it: Rig) -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{it.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def main() -> None:
    """Print the results."""
    ours = dict(bootstrap._RUNTIME)
    unlimited = {**ours, "http.max_requests_per_io_cycle": 1 << 31}
    defaults = {"overload.premature_reset_total_stream_count": 500}
    for name, runtime in (("Envoy's defaults", defaults), ("without a bound", unlimited), ("ours", ours)):
        bootstrap._RUNTIME.clear()
        bootstrap._RUNTIME.update(runtime)
        print(f"{name}: {asyncio.run(measure())}", flush=True)


if __name__ == "__main__":
    main()

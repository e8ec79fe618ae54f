"""Cost of the check of one message against the rules of its proto.

Run ``python -m tests.benchmarks.validation``. It prints the CPU time, as the least of several rounds: of parsing a
request, and of a whole unary call in a replica without sockets, with and without checks.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdk._wire.dispatch import build_routes
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from sdk.service import Cardinality, Method, MethodBinding
from tests.support.cluster import generate
from tests.support.wire_rig import Peer

ROUNDS, CALLS = 9, 2_000


async def answer(request: Any) -> Any:
    """Return the request."""
    return request


def bindings(message: Any) -> dict[str, MethodBinding]:
    """Return a method without checks, with checks of requests, and with checks of both messages."""
    method = Method("Get", "Get", "/t.T/Get", Cardinality.UNARY_UNARY, message, message)
    return {
        "without": MethodBinding(method, answer),
        "requests": MethodBinding(method, answer, checks_requests=True),
        "both": MethodBinding(method, answer, checks_requests=True, checks_responses=True),
    }


def least(function: Callable[[], object]) -> float:
    """Return the microseconds of CPU time of one call of a function."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(CALLS):
            function()
        found.append((time.process_time() - began) / CALLS * 1e6)
    return min(found)


async def least_of_calls(binding: MethodBinding, message: Any) -> float:
    """Return the microseconds of CPU time of one unary call."""
    server = WireServer([binding], WireSettings())
    server.host.attach(asyncio.get_running_loop())
    peer = Peer(server)
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(CALLS):
            peer.call("Get", message)
            while not peer.transport.chunks:
                await asyncio.sleep(0)
            peer.transport.chunks.clear()
        found.append((time.process_time() - began) / CALLS * 1e6)
    await server.drain(quiet_s=0, grace_s=0)
    return min(found)


def costs() -> dict[str, dict[str, float]]:
    """Return the microseconds of parsing a request and of a whole call, by the checks."""
    sys.path.insert(0, str(generate(Path(__file__).parents[1] / "validation" / "protos")))
    small = importlib.import_module("orders_pb2").Small
    message = small(id="abc", count=3, email="someone@example.com")
    data = message.SerializeToString()
    parsing, calls = {}, {}
    for name, binding in bindings(small).items():
        (route,) = build_routes([binding]).values()
        parsing[name] = least(lambda decode=route.decode_request: decode(data))  # type: ignore[misc]  # bound now
        calls[name] = asyncio.run(least_of_calls(binding, message))
    return {"parsing": parsing, "calls": calls}


if __name__ == "__main__":
    for kind, found in costs().items():
        for name, cost in found.items():
            print(f"{kind}, {name}: {cost:.2f} µs ({cost - found['without']:+.2f})")

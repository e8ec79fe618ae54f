"""Drain Envoy before it is stopped: send clients a GOAWAY, and wait for their calls to finish.

https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/operations/draining
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from pathlib import Path

from sdk._ingress.envoy.admin import admin_request
from sdk._xds.listener import DRAIN_NOTICE_S

#: Envoy's arguments for draining: send a GOAWAY with every response, not with a growing share of them.
DRAIN_ARGUMENTS = ("--drain-strategy", "immediate")
#: Default for the seconds that running calls get to finish.
DRAIN_TIMEOUT_S = 3.0
_POLL_S = 0.1


async def drain_envoy(admin_socket: Path, timeout_s: float = DRAIN_TIMEOUT_S) -> None:
    """Drain Envoy's connections, so that it can be stopped afterwards. Do nothing if Envoy does not answer.

    Each client gets a GOAWAY with its next response and connects again, to another proxy if it is behind a load
    balancer. After ``DRAIN_NOTICE_S`` this Envoy accepts no more connections. Returns when no call is left.

    Args:
        admin_socket: Path of the unix socket of Envoy's admin interface.
        timeout_s: Maximum seconds to wait. Calls that take longer end when Envoy is stopped.

    Example:
        >>> asyncio.run(drain_envoy(Path("/there/is/no/envoy.sock")))
    """
    started_at = time.monotonic()
    deadline = started_at + timeout_s
    accepts = True
    with contextlib.suppress(OSError, asyncio.TimeoutError):  # Envoy is gone already, or hangs
        await admin_request(admin_socket, "POST", "/drain_listeners?graceful&skip_exit")
        while time.monotonic() < deadline:
            # Poll after a pause: Envoy may not have read calls that are already on the wire.
            await asyncio.sleep(_POLL_S)
            if not await _count_calls(admin_socket):
                return
            if accepts and time.monotonic() > started_at + DRAIN_NOTICE_S:
                accepts = False
                await admin_request(admin_socket, "POST", "/drain_listeners")


async def _count_calls(admin_socket: Path) -> int:
    name = "http.grpc.downstream_rq_active"
    found = re.search(rf"{name}: (\d+)", await admin_request(admin_socket, "GET", f"/stats?filter=^{name}$"))
    return int(found[1]) if found else 0

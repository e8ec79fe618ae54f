"""How an Envoy stops without cutting calls: its clients are told to connect elsewhere, and what runs may end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from pathlib import Path

from sdk._xds.listener import DRAIN_NOTICE_S

#: What Envoy is started with: once it says goodbye it does so with every answer, not with a growing share of them.
DRAIN_ARGUMENTS = ("--drain-strategy", "immediate")
#: Seconds that calls get to end by themselves, unless the caller says otherwise.
DRAIN_TIMEOUT_S = 3.0
_POLL_S = 0.1
_ADMIN_PATIENCE_S = 1.0


async def drain_envoy(admin_socket: Path, patience_s: float = DRAIN_TIMEOUT_S) -> None:
    """Let Envoy's clients go; afterwards it can be ended. Does nothing when it does not answer.

    Each client is told with its next answer that its connection ends (GOAWAY), and connects anew: to another proxy, if
    a load balancer has one. Soon this Envoy takes no more connections. Returns as soon as no call is left.

    Args:
        admin_socket: Path of the unix socket of Envoy's admin interface.
        patience_s: The longest that it takes, in seconds; calls that last longer are cut by ending Envoy.

    Example:
        >>> asyncio.run(drain_envoy(Path("/there/is/no/envoy.sock")))
    """
    began = time.monotonic()
    deadline = began + patience_s
    accepts = True
    with contextlib.suppress(OSError, asyncio.TimeoutError):  # it is gone already, or hangs
        await _ask(admin_socket, "POST", "/drain_listeners?graceful&skip_exit")
        while time.monotonic() < deadline:
            # Not at once: calls may be on their way that it has not read yet.
            await asyncio.sleep(_POLL_S)
            if not await _count_calls(admin_socket):
                return
            if accepts and time.monotonic() > began + DRAIN_NOTICE_S:
                accepts = False
                await _ask(admin_socket, "POST", "/drain_listeners")


async def _count_calls(admin_socket: Path) -> int:
    name = "http.grpc.downstream_rq_active"
    found = re.search(rf"{name}: (\d+)", await _ask(admin_socket, "GET", f"/stats?filter=^{name}$"))
    return int(found[1]) if found else 0


async def _ask(admin_socket: Path, method: str, path: str) -> str:
    request = f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

    async def ask() -> str:
        reader, writer = await asyncio.open_unix_connection(str(admin_socket))
        try:
            writer.write(request.encode())
            return (await reader.read()).decode(errors="replace")
        finally:
            writer.close()

    return await asyncio.wait_for(ask(), _ADMIN_PATIENCE_S)

"""Requests to Envoy's admin interface, which listens on a unix socket that only this user can open.

https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

import asyncio
from pathlib import Path

_TIMEOUT_S = 1.0


async def admin_request(socket: Path, method: str, path: str) -> str:
    """Return Envoy's response, with its head.

    Args:
        socket: Path of the admin interface's unix socket.
        method: The HTTP method.
        path: The path and the query.

    Raises:
        OSError: Envoy does not listen there.
        TimeoutError: It does not answer within a second.
    """
    request = f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

    async def exchange() -> str:
        reader, writer = await asyncio.open_unix_connection(str(socket))
        try:
            writer.write(request.encode())
            return (await reader.read()).decode(errors="replace")
        finally:
            writer.close()

    return await asyncio.wait_for(exchange(), _TIMEOUT_S)

"""More room in a unix socket for a connection that carries long messages.

The kernel takes 208 KiB until the other end reads (``net.core.wmem_default``), and a message of a megabyte then costs
five writes and as many wake-ups of both processes: a fifth of their time. TCP adapts its own buffers.
"""

from __future__ import annotations

import socket
from typing import Any

# Bytes, which the kernel doubles for its own overhead, and limits to net.core.wmem_max (socket(7)). It keeps them only
# while they are unread, and the process holds the whole message meanwhile.
SEND_BUFFER = 1 << 19


def enlarge_send_buffer(transport: Any) -> None:
    """Give a connection room for a long message.

    Args:
        transport: Its transport.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_UNIX:  # None: Ray's handle carries the call
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

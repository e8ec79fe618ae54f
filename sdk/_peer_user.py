"""The user at the other end of a unix socket, by its kernel's word: SO_PEERCRED of unix(7)."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

# Process id, user id, group id.
_CREDENTIALS = struct.Struct("3i")


def peer_user(connected: Any) -> int:
    """Return the user id of the process at the other end of a connected unix socket.

    Args:
        connected: The socket, or what asyncio returns for it.
    """
    _, user, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def is_own_user(connected: Any) -> bool:
    """Return True if the other end runs as this user: an abstract socket has no permissions."""
    return peer_user(connected) == os.geteuid()

"""The user at the other end of a unix socket, by its kernel's word: SO_PEERCRED of unix(7)."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

# Process id, user id, group id.
_CREDENTIALS = struct.Struct("3i")


def peer_process(connected: Any) -> tuple[int, int]:
    """Return the ids of the process at the other end of a connected unix socket, and of its user.

    Args:
        connected: The socket, or what asyncio returns for it.
    """
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(found)
    return process, user


def peer_user(connected: Any) -> int:
    """Return the user id of the process at the other end of a connected unix socket."""
    return peer_process(connected)[1]


def is_own_user(connected: Any) -> bool:
    """Return True if the other end runs as this user: an abstract socket has no permissions."""
    return peer_user(connected) == os.geteuid()

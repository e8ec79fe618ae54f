"""Connections whose other end is checked when it connects: no call pays for it."""

from __future__ import annotations

import asyncio
import logging
import os

from sdk._peer_user import peer_user
from sdk._wire.connection import Connection

logger = logging.getLogger("sdk.wire")

_refused_users: set[int] = set()  # each is logged once


class LocalConnection(Connection):
    """A connection to a unix socket, from this user only: an abstract socket has no permissions."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        user = peer_user(transport.get_extra_info("socket"))
        if user == os.geteuid():
            super().connection_made(transport)
            return
        self.refuse(transport)
        if user not in _refused_users:
            _refused_users.add(user)
            logger.warning("refused a connection of another user of this node, with user id %d", user)

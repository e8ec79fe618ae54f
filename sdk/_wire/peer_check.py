"""Connections whose other end is checked when it connects: no call pays for it."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from typing import TYPE_CHECKING

from sdk._guard.peer_user import peer_user
from sdk._replica_protocol import CALLER_PATH, HEALTH_CHECK_PATH, IDENTITY_HEADERS, NODE_SECRET_HEADER
from sdk._wire import http_errors
from sdk._wire.connection import Connection
from sdk._wire.http_errors import HttpError

if TYPE_CHECKING:
    from sdk._guard.between_nodes import BetweenNodes
    from sdk._wire.host import Host
    from sdk._wire.idle_reaper import IdleReaper
    from sdk._wire.route import Route

logger = logging.getLogger("sdk.wire")

_SECRET = NODE_SECRET_HEADER.encode()
# Headers that say who the client is.
_IDENTITY = frozenset({*(name.encode() for name in IDENTITY_HEADERS), b"x-forwarded-client-cert", b"x-forwarded-proto"})
_PREFACE, _HEALTH_CHECK = CALLER_PATH.encode(), HEALTH_CHECK_PATH.encode()

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


class DistantConnection(Connection):
    """A connection over TCP. With mutual TLS its other end is trusted; else each request has to carry the secret.

    Args:
        host: Limits, counters and hooks, for its calls.
        routes: The methods by path.
        reaper: The open connections.
        guard: How its other end is checked.
    """

    __slots__ = ("_is_ours", "_secret")

    def __init__(self, host: Host, routes: dict[bytes, Route], reaper: IdleReaper, guard: BetweenNodes) -> None:
        super().__init__(host, routes, reaper)
        self._is_ours = guard.mode == "tls"
        self._secret = guard.secret.encode()

    def on_headers_complete(self) -> None:
        if not self._is_ours:
            self._check()
        super().on_headers_complete()

    def _check(self) -> None:
        """Check the secret; without one, drop the headers that say who the client is.

        Raises:
            HttpError: The secret is missing or wrong.
        """
        headers = self._headers
        if not self._secret:
            self._headers = [header for header in headers if header[0] not in _IDENTITY]
            return
        is_get = self._parser.get_method() == b"GET"
        if is_get and self._path == _HEALTH_CHECK:
            return
        if not hmac.compare_digest(dict(headers).get(_SECRET, b""), self._secret):
            raise HttpError(*http_errors.NOT_OURS, headers)
        if is_get and self._path == _PREFACE:
            self._is_ours = True  # a caller says it once

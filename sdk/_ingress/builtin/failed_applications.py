"""The applications that failed to deploy, which only Ray Serve knows: they have no replica that registers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

logger = logging.getLogger("sdk.ingress")

# Seconds that an answer is used, and that one may take.
_FRESH_S, _TIMEOUT_S = 1.0, 2.0


class FailedApplications:
    """Names of the applications that failed to deploy, asked for when a call needs them: at most once a second.

    Args:
        fetch: Returns the names.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[Collection[str]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._expires_at = float("-inf")
        self._names: asyncio.Task[Collection[str]] | None = None

    async def names(self) -> Collection[str]:
        """Return the names; none if they can't be had."""
        if self._names is None or self._clock() >= self._expires_at:
            self._expires_at = self._clock() + _FRESH_S
            self._names = asyncio.get_running_loop().create_task(self._fetch_in_time())
        return await asyncio.shield(self._names)

    async def _fetch_in_time(self) -> Collection[str]:
        try:
            return await asyncio.wait_for(self._fetch(), _TIMEOUT_S)
        except Exception as error:  # Ray raises errors of several types while its head is being restarted
            logger.warning("can't find out which applications failed to deploy (%s)", type(error).__name__)
            return ()

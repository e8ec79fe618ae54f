"""What the lives of others mean here: the ingress ends with Ray Serve, applications with the command they belong to.

A command that is killed can't clean up. It owns an object that is not there yet; Ray tells whoever waits for the object
that its owner has died, within seconds, and not when the owner is only stopped or slow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import ray

logger = logging.getLogger("sdk.ingress")


class Absence:
    """For how long something has been gone. Plain state; times are monotonic seconds.

    Args:
        timeout_s: Seconds until it counts as gone for good.

    Example:
        >>> absence = Absence(8.0)
        >>> absence.note(False, now=0.0), absence.note(False, now=7.9), absence.note(False, now=8.0)
        (False, False, True)
        >>> absence.note(True, now=9.0), absence.note(False, now=10.0)
        (False, False)
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: float | None = None

    def note(self, is_there: bool, now: float) -> bool:
        """Note whether it is there. Returns whether it has been gone for good."""
        if is_there:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= self._timeout_s


class OwnerLeases:
    """The commands that applications belong to."""

    def __init__(self) -> None:
        self._released: dict[str, asyncio.Event] = {}

    async def hold(self, key: str) -> None:
        """Return when the command lets go. Whoever calls this owns what it returns."""
        await self._released.setdefault(key, asyncio.Event()).wait()
        self._released.pop(key, None)

    def release(self, key: str) -> None:
        """Let go: the end of the command means nothing any more."""
        self._released.setdefault(key, asyncio.Event()).set()

    async def call_on_owner_death(self, held: Any, end: Callable[[], None]) -> None:
        """Wait until the command lets go; when it dies instead, call ``end`` in a thread.

        Args:
            held: What the command's call of :meth:`hold` will return.
            end: What is left to do.
        """
        try:
            await held
        except ray.exceptions.OwnerDiedError:
            logger.warning("a command was killed; what it served is ended")
            await asyncio.to_thread(end)
        except ray.exceptions.RayError as error:
            logger.warning("a command is no longer watched (%s)", type(error).__name__)

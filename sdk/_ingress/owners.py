"""Shut down the ingress when Ray Serve is gone, and applications when the command that owns them dies.

A command that is killed can't clean up. It owns an object that is still pending. Ray raises ``OwnerDiedError`` to those
that wait for the object within seconds of the owner's death, but not if the owner is only stopped or slow.
https://docs.ray.io/en/latest/ray-core/fault_tolerance/objects.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ray

logger = logging.getLogger("sdk.ingress")


class Absence:
    """Detects a long absence of something. Plain state; times are monotonic seconds.

    Args:
        timeout_s: Seconds of absence after which it counts as gone for good.

    Example:
        >>> absence = Absence(8.0)
        >>> absence.update(False, now=0.0), absence.update(False, now=7.9), absence.update(False, now=8.0)
        (False, False, True)
        >>> absence.update(True, now=9.0), absence.update(False, now=10.0)
        (False, False)
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: float | None = None

    def update(self, is_there: bool, now: float) -> bool:
        """Record whether it is there, and return whether it is gone for good."""
        if is_there:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= self._timeout_s


class OwnerLeases:
    """Leases of the commands that own applications.

    An application has one owner at most: the command that has deployed it last, or none if a program has.
    """

    def __init__(self) -> None:
        self._released: dict[str, asyncio.Event] = {}
        self._owners: dict[str, str] = {}  # the key of a lease, by application

    def claim(self, applications: Iterable[str], key: str = "") -> None:
        """Record that applications have a new owner.

        Args:
            applications: Their names.
            key: The key of the command's lease; "" for a program, which leaves them when it ends.
        """
        for name in applications:
            self._owners[name] = key

    def owned(self, applications: Iterable[str], key: str) -> tuple[str, ...]:
        """Return those of a lease's applications that nobody has deployed since, as far as this process knows."""
        return tuple(name for name in applications if self._owners.get(name, key) == key)

    async def hold(self, key: str) -> None:
        """Return when the command releases its lease. The caller owns the returned object."""
        await self._released.setdefault(key, asyncio.Event()).wait()

    def release(self, key: str) -> None:
        """Release a lease: the end of the command has no effect any more."""
        self._released.setdefault(key, asyncio.Event()).set()

    async def call_on_owner_death(
        self, key: str, held: Any, applications: Sequence[str], end: Callable[[Sequence[str]], None]
    ) -> None:
        """Wait until the command releases its lease. If it dies instead, call a function in a thread.

        Args:
            key: The key of the lease.
            held: The object that the command's call of :meth:`hold` will return.
            applications: Names of the applications that the command deploys.
            end: The function; gets the names of those that nobody has deployed since.
        """
        try:
            await held
        except ray.exceptions.OwnerDiedError:
            # A command that releases its lease may exit before Ray has passed on what `hold` returned.
            if not self._is_released(key):
                logger.warning("a command was killed; removing its applications")
                await asyncio.to_thread(end, self.owned(applications, key))
        except ray.exceptions.RayError as error:
            logger.warning("a command is no longer watched (%s)", type(error).__name__)
        finally:
            self._released.pop(key, None)
            self._owners = {name: owner for name, owner in self._owners.items() if owner != key}

    def _is_released(self, key: str) -> bool:
        return key in self._released and self._released[key].is_set()

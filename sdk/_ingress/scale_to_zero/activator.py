"""The activator: start a replica for each deployment that calls wait for, at any proxy."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk._channel.feed import DeploymentKey

logger = logging.getLogger("sdk.ingress")

#: Starts a replica of a deployment, given as application and deployment. Returns an empty string when a replica is
#: ready, or the reason why none can start. Cancelled if no call waits any more.
Activate = Callable[[str, str], Awaitable[str]]

# Seconds without a report after which a proxy counts as dead, and its waiting calls too.
_LEASE_S = 3.0
# Seconds until another try to start a deployment that could not start, if calls wait.
_RETRY_S = 2.0


class Activator:
    """Starts replicas for the waiting calls of all proxies, one task for each deployment.

    Args:
        activate: Starts a replica.
        clock: Monotonic seconds.
    """

    def __init__(self, activate: Activate, clock: Callable[[], float] = time.monotonic) -> None:
        self._activate = activate
        self._clock = clock
        # Proxy → number of waiting calls by deployment, and the time at which the report expires.
        self._reports: dict[str, tuple[Mapping[DeploymentKey, int], float]] = {}
        self._tasks: dict[DeploymentKey, asyncio.Task[str]] = {}
        # Time until which a deployment that could not start is not tried again: its waiting calls get the reason.
        self._not_before: dict[DeploymentKey, float] = {}

    @property
    def waiting(self) -> dict[DeploymentKey, int]:
        """Number of waiting calls by deployment, over all proxies."""
        total: dict[DeploymentKey, int] = {}
        for counts, _ in self._reports.values():
            for key, number in counts.items():
                total[key] = total.get(key, 0) + number
        return total

    def report(self, proxy_id: str, counts: Mapping[DeploymentKey, int]) -> dict[DeploymentKey, str]:
        """Record a proxy's report.

        Args:
            proxy_id: The proxy.
            counts: Number of its waiting calls by deployment.

        Returns:
            Deployment → reason why it can't start, for those of these deployments that can't.
        """
        if counts:
            self._reports[proxy_id] = counts, self._clock() + _LEASE_S
        else:
            self._reports.pop(proxy_id, None)
        self.expire()
        return {key: reason for key in counts if (reason := self._reason(key))}

    def expire(self) -> None:
        """Drop expired reports, and start and cancel tasks accordingly. Call it about once a second."""
        now = self._clock()
        self._reports = {proxy: report for proxy, report in self._reports.items() if report[1] > now}
        waiting = self.waiting
        for key in self._tasks.keys() - waiting.keys():
            self._tasks.pop(key).cancel()
            self._not_before.pop(key, None)
        for key in waiting:
            task = self._tasks.get(key)
            # A task that has succeeded is followed by another one if calls wait again, or still. So is one that has
            # failed, after a pause: the cause may be gone.
            if task is None or (task.done() and now >= self._not_before.get(key, 0.0)):
                self._tasks[key] = asyncio.get_running_loop().create_task(self._run(key))

    async def stop(self) -> None:
        """Cancel every task."""
        tasks, self._tasks, self._reports = list(self._tasks.values()), {}, {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: DeploymentKey) -> str:
        logger.info("calls wait for a replica of deployment %r of application %r", key[1], key[0])
        try:
            reason = await self._activate(*key)
        except Exception:
            logger.exception("starting a replica of deployment %r of application %r failed", key[1], key[0])
            reason = ""
        if reason:
            self._not_before[key] = self._clock() + _RETRY_S
        return reason

    def _reason(self, key: DeploymentKey) -> str:
        task = self._tasks.get(key)
        return task.result() if task is not None and task.done() else ""

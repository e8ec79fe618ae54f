"""Which deployments calls wait for, by what every proxy reports, and one task for each that has a replica started."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk._ingress.scale_to_zero.waiting_calls import DeploymentKey

logger = logging.getLogger("sdk.ingress")

#: Has a replica of a deployment (application, deployment) started; returns when one answers, with an empty text, or
#: when none can start, with the reason. It is cancelled when no call waits any more.
Activate = Callable[[str, str], Awaitable[str]]

# Seconds without a report after which a proxy's waiting calls are gone with it.
_LEASE_S = 3.0
# Seconds until a deployment that can't start is tried again, if calls wait.
_RETRY_S = 2.0


class Activator:
    """The controller's view of waiting calls.

    Args:
        activate: Has a replica started.
        clock: Monotonic seconds.
    """

    def __init__(self, activate: Activate, clock: Callable[[], float] = time.monotonic) -> None:
        self._activate = activate
        self._clock = clock
        # By proxy: how many calls wait for which deployment, and until when that counts.
        self._reports: dict[str, tuple[Mapping[DeploymentKey, int], float]] = {}
        self._tasks: dict[DeploymentKey, asyncio.Task[str]] = {}
        # Until when the reason why a deployment can't start answers the calls that wait for it.
        self._not_before: dict[DeploymentKey, float] = {}

    @property
    def waiting(self) -> dict[DeploymentKey, int]:
        """How many calls wait for each deployment, over all proxies."""
        total: dict[DeploymentKey, int] = {}
        for counts, _ in self._reports.values():
            for key, number in counts.items():
                total[key] = total.get(key, 0) + number
        return total

    def report(self, proxy_id: str, counts: Mapping[DeploymentKey, int]) -> dict[DeploymentKey, str]:
        """Take a proxy's report.

        Args:
            proxy_id: The proxy.
            counts: How many calls wait there for which deployment.

        Returns:
            Why some of these deployments can't start.
        """
        if counts:
            self._reports[proxy_id] = counts, self._clock() + _LEASE_S
        else:
            self._reports.pop(proxy_id, None)
        self.expire()
        return {key: reason for key in counts if (reason := self._reason(key))}

    def expire(self) -> None:
        """Forget proxies that no longer report, and start and end tasks by what is left. Call it now and then."""
        now = self._clock()
        self._reports = {proxy: report for proxy, report in self._reports.items() if report[1] > now}
        waiting = self.waiting
        for key in self._tasks.keys() - waiting.keys():
            self._tasks.pop(key).cancel()
            self._not_before.pop(key, None)
        for key in waiting:
            task = self._tasks.get(key)
            # One that has ended well has a successor when calls wait again, or still. After a failure too: what was in
            # the way may be gone.
            if task is None or (task.done() and now >= self._not_before.get(key, 0.0)):
                self._tasks[key] = asyncio.get_running_loop().create_task(self._run(key))

    async def stop(self) -> None:
        """End every task."""
        tasks, self._tasks, self._reports = list(self._tasks.values()), {}, {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: DeploymentKey) -> str:
        logger.info("calls wait for a replica of deployment %r of application %r", key[1], key[0])
        try:
            reason = await self._activate(*key)
        except Exception:
            logger.exception("having a replica of deployment %r of application %r started failed", key[1], key[0])
            reason = ""
        if reason:
            self._not_before[key] = self._clock() + _RETRY_S
        return reason

    def _reason(self, key: DeploymentKey) -> str:
        task = self._tasks.get(key)
        return task.result() if task is not None and task.done() else ""

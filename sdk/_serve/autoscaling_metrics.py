"""A replica tells Ray Serve's autoscaling of its calls, which reach it without Ray Serve's proxies.

A decorated class has a policy of ours, which counts them. A config file that sets ``autoscaling_config`` puts Ray
Serve's default policy in its place, and that one counts what deployment handles report; so the replica does the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from sdk._serve.internals import deployment_config, find_serve, report_running

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig

logger = logging.getLogger("ray.serve")

# Seconds between two looks at the number of calls; Ray Serve's handles take as long.
_SAMPLE_S = 0.5


class History:
    """How many calls there were at the moments of the last seconds.

    Example:
        >>> history = History()
        >>> history.add(100.0, 3, look_back_s=30.0)
        >>> history.add(131.0, 5, look_back_s=30.0)
        >>> history.points
        [(131.0, 5.0)]
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()

    def add(self, now: float, calls: int, look_back_s: float) -> None:
        """Add a moment and forget those that are older than ``look_back_s``."""
        self._points.append((now, float(calls)))
        while self._points[0][0] < now - look_back_s:
            self._points.popleft()

    @property
    def points(self) -> list[tuple[float, float]]:
        """Seconds since the epoch, and a number of calls, the oldest first."""
        return list(self._points)


def needs_reports(config: AutoscalingConfig | None) -> bool:
    """Tell whether Ray Serve's default policy scales a deployment."""
    return config is not None and config.policy.is_default_policy_function()


async def report_calls(count: Callable[[], int]) -> None:
    """Report the calls of this replica without end, while Ray Serve's default policy scales its deployment.

    Args:
        count: Returns how many calls run or wait.
    """
    history = History()
    controller: Any = None
    reported = 0.0
    while True:
        await asyncio.sleep(_SAMPLE_S)
        config = deployment_config().autoscaling_config
        if not needs_reports(config):
            continue
        now = time.time()
        history.add(now, count(), config.look_back_period_s)
        if now - reported < config.metrics_interval_s:
            continue
        try:
            controller = controller or await asyncio.to_thread(find_serve)
            if controller is not None:
                report_running(controller, history.points)
                reported = now
        except ray.exceptions.RayError as error:
            logger.warning("calls can't be reported for autoscaling (%s); trying again", type(error).__name__)
            controller = None

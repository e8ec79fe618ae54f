"""Report a replica's gRPC calls to Ray Serve's default autoscaling policy.

A decorated class gets the policy of ``autoscaling.py``, which counts its gRPC calls. A config file that sets
``autoscaling_config`` replaces it by Ray Serve's default policy, which counts the requests that deployment handles
report; so the replica sends such a report, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from sdk._serve.internals import deployment_config, find_serve_controller, report_ongoing_calls

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig

logger = logging.getLogger("ray.serve")

# Seconds between two samples of the number of calls, as in Ray Serve's handles.
_SAMPLE_INTERVAL_S = 0.5


class CallSamples:
    """Samples of the number of calls over the last seconds.

    Example:
        >>> samples = CallSamples()
        >>> samples.add(100.0, 3, look_back_s=30.0)
        >>> samples.add(131.0, 5, look_back_s=30.0)
        >>> samples.points
        [(131.0, 5.0)]
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()

    def add(self, now: float, calls: int, look_back_s: float) -> None:
        """Add a sample and drop those that are older than ``look_back_s`` seconds."""
        self._points.append((now, float(calls)))
        while self._points[0][0] < now - look_back_s:
            self._points.popleft()

    @property
    def points(self) -> list[tuple[float, float]]:
        """Pairs of seconds since the epoch and a number of calls, the oldest first."""
        return list(self._points)


def uses_default_policy(config: AutoscalingConfig | None) -> bool:
    """Return True if Ray Serve's default policy scales a deployment."""
    return config is not None and config.policy.is_default_policy_function()


async def report_calls(count: Callable[[], int]) -> None:
    """Report the calls of this replica at intervals, until its deployment no longer has Ray Serve's default policy.

    Args:
        count: Returns the number of running and queued calls.
    """
    samples = CallSamples()
    controller: Any = None
    reported = 0.0
    while True:
        await asyncio.sleep(_SAMPLE_INTERVAL_S)
        config = deployment_config().autoscaling_config
        if not uses_default_policy(config):
            return
        now = time.time()
        samples.add(now, count(), config.look_back_period_s)
        if now - reported < config.metrics_interval_s:
            continue
        try:
            controller = controller or await asyncio.to_thread(find_serve_controller)
            if controller is not None:
                report_ongoing_calls(controller, samples.points)
                reported = now
        except ray.exceptions.RayError as error:
            logger.warning("calls can't be reported for autoscaling (%s); trying again", type(error).__name__)
            controller = None

"""The calls of the whole cluster in the last seconds, for the page of the console."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any

from sdk._figures.recent import STALE_S, RecentCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdk._figures.figures import Reading

logger = logging.getLogger("sdk.ingress")

# Seconds between two readings: Ray exports every ten.
_EVERY_S = 5.0
# A reading of thousands of replicas takes seconds of this process. It gets a tenth of the time at most.
_PAUSE = 10
# Replicas that the page gets, the busiest, every two seconds.
_REPLICAS = 100


class LiveCalls:
    """Reads the metrics of all nodes while a page asks for them, however many pages do.

    Args:
        read: Returns the metrics of all nodes; it blocks.
        clock: Returns monotonic seconds.
    """

    def __init__(self, read: Callable[[], Reading], clock: Callable[[], float] = time.monotonic) -> None:
        self._recent = RecentCalls(read)
        self._clock = clock
        self._shown: dict[str, Any] | None = None
        self._problem = ""
        self._reading: asyncio.Task[None] | None = None
        self._read_at = self._due = float("-inf")

    def latest(self) -> tuple[dict[str, Any] | None, str]:
        """Return the newest figures, and the reason why they can't be had. The first answers have neither.

        The figures are those of ``sdk top --json``, of the busiest replicas; ``left_out`` is the number of the others.
        """
        now = self._clock()
        if now > self._read_at + STALE_S:
            self._shown = None
        if now >= self._due and (self._reading is None or self._reading.done()):
            self._reading = asyncio.get_running_loop().create_task(self._read(now))
        return self._shown, self._problem

    async def _read(self, began: float) -> None:
        try:
            self._shown = await asyncio.to_thread(self._figures)
            self._problem = self._recent.problem
        except Exception as error:  # Ray raises errors of several types while its head is being restarted
            logger.debug("can't read the metrics of the nodes: %r", error)
            self._shown, self._problem = None, f"The calls can't be read ({type(error).__name__}); trying again."
        self._read_at = self._clock()
        self._due = began + max(_EVERY_S, _PAUSE * (self._read_at - began))

    def _figures(self) -> dict[str, Any] | None:
        figures = self._recent.figures()
        if figures is None:
            return None
        busiest = sorted(figures.replicas, key=lambda each: -each.calls_per_s)[:_REPLICAS]
        busiest.sort(key=lambda each: (each.application, each.deployment, each.replica))
        shown = dataclasses.replace(figures, replicas=tuple(busiest))
        return {**dataclasses.asdict(shown), "left_out": len(figures.replicas) - len(busiest)}

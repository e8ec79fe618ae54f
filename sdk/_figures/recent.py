"""The calls of the last seconds, for a display that is refreshed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sdk._figures.figures import measure
from sdk.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdk._figures.figures import Figures, Reading

# Seconds that the figures are of: Ray exports every ten.
_OVER_S = 20.0
#: Seconds after which a reading is of the past: nobody has looked at the display for a while.
STALE_S = 60.0


class RecentCalls:
    """The calls of the last seconds.

    Args:
        read: Returns the metrics of all nodes now.

    Attributes:
        problem: The reason why they are not known; empty if they are.
    """

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read
        self._readings: deque[Reading] = deque()
        self.problem = ""

    def figures(self) -> Figures | None:
        """Return the figures since the oldest of the readings; None before the second, or if no node can be read."""
        readings = self._readings
        try:
            readings.append(self._read())
        except ClusterError as error:
            self.problem = str(error)
            return None
        self.problem = ""
        while readings[0].at < readings[-1].at - STALE_S or (
            len(readings) > 2 and readings[1].at <= readings[-1].at - _OVER_S
        ):
            readings.popleft()
        return measure(readings[0], readings[-1]) if len(readings) > 1 else None

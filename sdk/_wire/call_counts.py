"""Counts of the calls of one method that have ended, by status, origin and duration.

On the path of every request, and written for speed: a call adds one to one number. What is exported, and how, is
decided elsewhere, from the numbers that :meth:`CallCounts.take` returns.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

#: Upper bounds of the buckets of durations, in milliseconds: those of Ray Serve.
LATENCY_BOUNDS_MS = (
    1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500, 1000, 2000, 5000, 10_000, 60_000, 120_000, 300_000, 600_000
)  # fmt: skip

#: Added to a number of bytes for each message, so that one addition counts both: much more than the bytes of the few
#: seconds between two exports.
ONE_MESSAGE = 1 << 48

#: Name of each gRPC status code: ``{5: "NOT_FOUND", …}``.
STATUS_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class CountedCalls:
    """Calls that have ended with the same status, and came from the same side.

    Attributes:
        status: The gRPC status code.
        is_inner: True if another deployment made them, False if a client did.
        buckets: Number of calls by duration: one number more than there are bounds.
        seconds: The sum of their durations.
    """

    status: int
    is_inner: bool
    buckets: tuple[int, ...]
    seconds: float

    @property
    def total(self) -> int:
        """Number of calls."""
        return sum(self.buckets)


class CallCounts:
    """Counts the calls of one method.

    Args:
        bounds_ms: Upper bounds of the buckets, in milliseconds, ascending.

    Attributes:
        received: Request messages since the last :meth:`take_messages`: their bytes, as they were sent, and
            :data:`ONE_MESSAGE` for each.
        sent: The same of response messages.

    Example:
        >>> counts = CallCounts((1, 10))
        >>> counts.add(0, 0.005, is_inner=False)
        >>> counts.add(0, 0.5, is_inner=False)
        >>> counts.take()
        [CountedCalls(status=0, is_inner=False, buckets=(0, 1, 1), seconds=0.505)]
        >>> counts.take()
        []
    """

    __slots__ = (
        "_bounds_s", "_failures", "_ok_inner", "_ok_outer", "_size", "received", "sent",
    )  # fmt: skip

    def __init__(self, bounds_ms: Sequence[float] = LATENCY_BOUNDS_MS) -> None:
        self._bounds_s = [bound / 1e3 for bound in bounds_ms]
        self._size = len(self._bounds_s) + 2  # the last number is the sum of the durations
        self._ok_outer: list[float] = [0] * self._size
        self._ok_inner: list[float] = [0] * self._size
        self._failures: dict[tuple[int, bool], list[float]] = {}
        self.received = self.sent = 0

    def add(self, status: int, seconds: float, *, is_inner: bool) -> None:
        """Count a call.

        Args:
            status: The gRPC status code that it ended with.
            seconds: Its duration.
            is_inner: True if another deployment made it.
        """
        if status:
            buckets = self._failures.get((status, is_inner))
            if buckets is None:
                buckets = self._failures[status, is_inner] = [0] * self._size
        else:
            buckets = self._ok_inner if is_inner else self._ok_outer
        buckets[bisect_left(self._bounds_s, seconds)] += 1
        buckets[-1] += seconds

    def take(self) -> list[CountedCalls]:
        """Return the calls since the last time."""
        taken = {(0, False): self._ok_outer, (0, True): self._ok_inner, **self._failures}
        self._ok_outer, self._ok_inner, self._failures = [0] * self._size, [0] * self._size, {}
        return [
            CountedCalls(status, is_inner, tuple(map(int, buckets[:-1])), buckets[-1])
            for (status, is_inner), buckets in taken.items()
            if any(buckets[:-1])
        ]

    def take_messages(self) -> dict[str, tuple[int, int]]:
        """Return messages and bytes since the last time, ``"received"`` and ``"sent"``, without zeros."""
        taken = {"received": divmod(self.received, ONE_MESSAGE), "sent": divmod(self.sent, ONE_MESSAGE)}
        self.received = self.sent = 0
        return {direction: counted for direction, counted in taken.items() if counted[0]}


class ModelCounts:
    """Counts calls by the model that they are for. Clients name any model, so only the first names are kept.

    Args:
        limit: Number of models that are distinguished; the calls for further ones are counted together.

    Example:
        >>> counts = ModelCounts(limit=1)
        >>> for model in ("a", "b", "a", "c"):
        ...     counts.add(model)
        >>> counts.take()
        {'a': 2, '_OTHER': 2}
        >>> counts.take()
        {}
    """

    #: The name of all models beyond the limit.
    OTHER = "_OTHER"

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._counts: dict[str, int] = {}

    def add(self, model: str) -> None:
        """Count a call.

        Args:
            model: The id of its model.
        """
        if model not in self._known:
            if len(self._known) < self._limit:
                self._known.add(model)
            else:
                model = self.OTHER
        self._counts[model] = self._counts.get(model, 0) + 1

    def take(self) -> dict[str, int]:
        """Return the calls since the last time, by model."""
        counts, self._counts = self._counts, {}
        return counts

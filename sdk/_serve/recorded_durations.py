"""OpenTelemetry's metric of a replica's calls, for a meter provider that the program has set.

Its instruments take one value at a time, so the calls are recorded later, in a thread, and no more than the replica can
afford. Providers that environment variables ask for get the counts themselves: ``sdk/_otel/call_durations.py``.
https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/#metric-rpcservercallduration
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from sdk._otel import conventions as rpc
from sdk._serve.call_metrics import BoundedHistogram, Tags

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

#: Attributes → the number of calls by duration, and the sum of their seconds.
Pending: TypeAlias = dict[Tags, tuple[list[int], float]]
#: Most values of one :meth:`RecordedDurations.record`. Each costs about 5 µs.
MAX_VALUES = 5000


def meter_provider() -> MeterProvider | None:
    """Return the meter provider of OpenTelemetry's SDK that this process has; None if it has no such provider."""
    api, implementation = sys.modules.get("opentelemetry.metrics"), sys.modules.get("opentelemetry.sdk.metrics")
    if api is None or implementation is None:
        return None
    provider: Any = api.get_meter_provider()
    return provider if isinstance(provider, implementation.MeterProvider) else None


class RecordedDurations:
    """The durations of one server's calls, in an instrument of a meter provider.

    Values are those of their buckets, moved so that the sum is about the right one. Above :data:`MAX_VALUES` all series
    are thinned by the same factor.

    Args:
        provider: The provider.
        bounds_ms: Upper bounds of the buckets in which calls are counted, in milliseconds.

    Attributes:
        provider: The provider.
    """

    def __init__(self, provider: MeterProvider, bounds_ms: Sequence[float]) -> None:
        self.provider = provider
        self._histogram = provider.get_meter(*rpc.scope()).create_histogram(
            rpc.CALL_DURATION,
            "s",
            rpc.CALL_DURATION_TEXT,
            explicit_bucket_boundaries_advisory=list(rpc.DURATION_BOUNDS_S),
        )
        self._bounds_ms = bounds_ms
        self._thinned = BoundedHistogram(bounds_ms, MAX_VALUES)
        self._pending: Pending = {}
        self._recording = threading.Lock()

    def add(self, path: str, status: str, buckets: Iterable[int], seconds: float) -> None:
        """Add calls of one method that have ended with the same status.

        Args:
            path: The method's path; empty for methods that the server does not have.
            status: Name of the status code.
            buckets: Number of calls by duration.
            seconds: The sum of their durations.
        """
        key = tuple(rpc.server_attributes(path, status).items())
        before, total = self._pending.get(key, ([0] * (len(self._bounds_ms) + 1), 0.0))
        self._pending[key] = [old + new for old, new in zip(before, buckets, strict=True)], total + seconds

    def take(self) -> Pending:
        """Return the calls since the last time. Called where :meth:`add` is."""
        pending, self._pending = self._pending, {}
        return pending

    def record(self, pending: Pending) -> None:
        """Record calls; it takes a while, so call it in a thread.

        Args:
            pending: What :meth:`take` has returned.
        """
        with self._recording:
            found: dict[Tags, list[float]] = {}
            series = {key: buckets for key, (buckets, _) in pending.items()}
            for key, milliseconds in self._thinned.observations(series):
                found.setdefault(key, []).append(milliseconds)
            for key, values in found.items():
                buckets, seconds = pending[key]
                mean = seconds / sum(buckets)
                factor = mean * 1e3 * len(values) / sum(values)
                for value in values:
                    self._histogram.record(self._moved(value, factor) / 1e3, dict(key))

    def _moved(self, value: float, factor: float) -> float:
        """Return a value that is multiplied by a factor, and is in the same bucket."""
        bounds = self._bounds_ms
        index = bisect_left(bounds, value)
        low = bounds[index - 1] * (1 + 1e-9) if index else 0.0
        return max(low, min(value * factor, bounds[index] if index < len(bounds) else float("inf")))

"""OpenTelemetry's metric of a server's calls, from counts: nothing is recorded for one call.

The instruments of OpenTelemetry's SDK take one value at a time, which costs more than a short call. The histogram is
therefore made here, in the form that exporters take.
https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/#metric-rpcservercallduration
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sdk._otel import conventions as rpc

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


class _Series:
    def __init__(self) -> None:
        self.buckets = [0] * (len(rpc.DURATION_BOUNDS_S) + 1)
        self.seconds = 0.0


class CallDurations:
    """The durations of one server's calls, by method and status.

    Args:
        resource: The description of this process.
        bounds_ms: Upper bounds of the buckets in which calls are counted, in milliseconds; with those of the metric.
        environment: Environment variables by name: one says whether collectors want totals or differences.
    """

    def __init__(self, resource: Resource, bounds_ms: Sequence[float], environment: Mapping[str, str]) -> None:
        self._resource = resource
        self._bucket = [bisect_left(rpc.DURATION_BOUNDS_S, bound / 1e3) for bound in bounds_ms]
        self._bucket.append(len(rpc.DURATION_BOUNDS_S))
        self._is_delta = environment.get(_PREFERENCE, "").strip().lower() in ("delta", "lowmemory")
        self._series: dict[tuple[str, str], _Series] = {}
        self._began = time.time_ns()

    def add(self, path: str, status: str, buckets: Iterable[int], seconds: float) -> None:
        """Add calls of one method that have ended with the same status.

        Args:
            path: The method's path; empty for methods that the server does not have.
            status: Name of the status code.
            buckets: Number of calls by duration.
            seconds: The sum of their durations.
        """
        series = self._series.get((path, status))
        if series is None:
            series = self._series[path, status] = _Series()
        for index, number in zip(self._bucket, buckets, strict=True):
            series.buckets[index] += number
        series.seconds += seconds

    def collect(self) -> MetricsData | None:
        """Return the metric as of now, for an exporter; None if there is nothing to export."""
        if not self._series:
            return None
        now = time.time_ns()
        points = [
            HistogramDataPoint(
                attributes=rpc.server_attributes(path, status),
                start_time_unix_nano=self._began,
                time_unix_nano=now,
                count=sum(series.buckets),
                sum=series.seconds,
                bucket_counts=tuple(series.buckets),
                explicit_bounds=rpc.DURATION_BOUNDS_S,
                min=_NOT_KNOWN,
                max=_NOT_KNOWN,
            )
            for (path, status), series in self._series.items()
        ]
        temporality = AggregationTemporality.CUMULATIVE
        if self._is_delta:
            temporality, self._began, self._series = AggregationTemporality.DELTA, now, {}
        metric = Metric(
            rpc.CALL_DURATION,
            rpc.CALL_DURATION_TEXT,
            "s",
            Histogram(points, temporality),
        )
        scope = ScopeMetrics(InstrumentationScope(*rpc.scope()), [metric], "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


# Exporters leave it out.
_NOT_KNOWN: Any = None

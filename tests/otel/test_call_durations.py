"""OpenTelemetry's histogram of calls, made from counts."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.resources import Resource

from sdk._otel.call_durations import CallDurations
from sdk._otel.conventions import DURATION_BOUNDS_S
from sdk._serve import internals
from sdk._serve.replica_telemetry import LATENCY_BOUNDS_MS
from sdk._wire.call_counts import CallCounts

RESOURCE = Resource({"service.name": "app"})
ALWAYS: dict[str, str] = {}
DELTA = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "Delta"}


def add(durations: CallDurations, path: str, status: str, *seconds: float) -> None:
    counts = CallCounts(LATENCY_BOUNDS_MS)
    for each in seconds:
        counts.add(0, each, is_inner=False)
    for counted in counts.take():
        durations.add(path, status, counted.buckets, counted.seconds)


def metric_of(durations: CallDurations) -> Any:
    data = durations.collect()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    (metric,) = scope.metrics
    return metric


def test_replicas_count_by_the_bounds_of_both() -> None:
    assert set(LATENCY_BOUNDS_MS) == {*internals.LATENCY_BOUNDS_MS, *(bound * 1000 for bound in DURATION_BOUNDS_S)}


def test_each_bucket_has_its_calls() -> None:
    durations = CallDurations(RESOURCE, LATENCY_BOUNDS_MS, ALWAYS)
    seconds = [*DURATION_BOUNDS_S, 0.0001, 0.06, 11.0]
    add(durations, "/t.T/Get", "OK", *seconds)
    (point,) = metric_of(durations).data.data_points
    assert point.bucket_counts == (2, 1, 1, 1, 2, *[1] * 9, 1)
    assert point.sum == pytest.approx(sum(seconds))
    assert point.count == len(seconds)


def test_series_by_method_and_status() -> None:
    durations = CallDurations(RESOURCE, LATENCY_BOUNDS_MS, ALWAYS)
    add(durations, "/t.T/Get", "NOT_FOUND", 0.1)
    add(durations, "/t.T/Get", "INTERNAL", 0.1)
    add(durations, "", "UNIMPLEMENTED", 0.1)
    metric = metric_of(durations)
    assert (metric.name, metric.unit) == ("rpc.server.call.duration", "s")
    common = {"rpc.system.name": "grpc", "rpc.method": "t.T/Get"}
    assert [point.attributes for point in metric.data.data_points] == [
        {**common, "rpc.status_code": "NOT_FOUND"},
        {**common, "rpc.status_code": "INTERNAL", "error.type": "INTERNAL"},
        {**common, "rpc.method": "_OTHER", "rpc.status_code": "UNIMPLEMENTED", "error.type": "UNIMPLEMENTED"},
    ]


@pytest.mark.parametrize(
    ("environment", "temporality", "second"),
    [(ALWAYS, AggregationTemporality.CUMULATIVE, 3), (DELTA, AggregationTemporality.DELTA, 1)],
)
def test_totals_or_differences(environment: Any, temporality: Any, second: int) -> None:
    durations = CallDurations(RESOURCE, LATENCY_BOUNDS_MS, environment)
    assert durations.collect() is None
    add(durations, "/t.T/Get", "OK", 0.1, 0.2)
    first = metric_of(durations).data
    assert (first.aggregation_temporality, first.data_points[0].count) == (temporality, 2)
    add(durations, "/t.T/Get", "OK", 0.1)
    (point,) = metric_of(durations).data.data_points
    assert point.count == second
    began_later = point.start_time_unix_nano == first.data_points[0].time_unix_nano
    assert began_later == (temporality is AggregationTemporality.DELTA)


def test_exporters_can_encode_it() -> None:
    durations = CallDurations(RESOURCE, LATENCY_BOUNDS_MS, ALWAYS)
    add(durations, "/t.T/Get", "OK", 0.1)
    data = durations.collect()
    assert data is not None
    encoded = encode_metrics(data).resource_metrics[0]
    (point,) = encoded.scope_metrics[0].metrics[0].histogram.data_points
    assert (point.count, point.HasField("min"), point.HasField("max")) == (1, False, False)
    assert encoded.resource.attributes[0].value.string_value == "app"

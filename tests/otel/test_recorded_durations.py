"""The metric of calls in a meter provider that the program has set."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.metrics import _internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.util._once import Once

from sdk._otel.conventions import CALL_DURATION, DURATION_BOUNDS_S
from sdk._otel.environment import Telemetry
from sdk._serve import replica_telemetry
from sdk._serve.recorded_durations import MAX_VALUES, RecordedDurations, meter_provider
from sdk._serve.replica_telemetry import LATENCY_BOUNDS_MS, ReplicaTelemetry
from sdk._wire.call_counts import CallCounts


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """The reader of the process's provider, which the program has set."""
    monkeypatch.setattr(_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(_internal, "_METER_PROVIDER_SET_ONCE", Once())
    assert meter_provider() is None
    found = InMemoryMetricReader()
    provider = MeterProvider([found])
    metrics.set_meter_provider(provider)
    yield found
    provider.shutdown()


def durations_of(reader: InMemoryMetricReader) -> dict[tuple[str, str], Any]:
    """Return the data points of the metric by method and status."""
    data = reader.get_metrics_data()
    assert data is not None
    made = [metric for each in data.resource_metrics[0].scope_metrics for metric in each.metrics]
    found = [metric for metric in made if metric.name == CALL_DURATION]
    assert [(metric.unit, metric.description[:8]) for metric in found] == [("s", "Measures")]
    return {
        (point.attributes["rpc.method"], point.attributes["rpc.status_code"]): point
        for point in found[0].data.data_points
    }


def add(durations: RecordedDurations, path: str, status: str, *seconds: float) -> None:
    counts = CallCounts(LATENCY_BOUNDS_MS)
    for each in seconds:
        counts.add(0, each, is_inner=False)
    for counted in counts.take():
        durations.add(path, status, counted.buckets, counted.seconds)


def recorded() -> RecordedDurations:
    provider = meter_provider()
    assert provider is not None
    return RecordedDurations(provider, LATENCY_BOUNDS_MS)


def test_each_call_is_in_its_bucket_and_the_sum_is_right(reader: InMemoryMetricReader) -> None:
    durations = recorded()
    add(durations, "/t.T/Get", "OK", 0.0003, 0.0003, 0.0009)
    durations.record(durations.take())
    add(durations, "/t.T/Get", "OK", 0.06, 11.0)
    add(durations, "", "UNIMPLEMENTED", 0.001)
    durations.record(durations.take())
    durations.record(durations.take())
    found = durations_of(reader)
    ok = found["t.T/Get", "OK"]
    assert tuple(ok.explicit_bounds) == DURATION_BOUNDS_S
    assert ok.bucket_counts == (3, 0, 0, 0, 1, *[0] * 9, 1)
    assert ok.count == 5
    assert ok.sum == pytest.approx(11.0615, rel=0.05)
    assert dict(found["_OTHER", "UNIMPLEMENTED"].attributes)["error.type"] == "UNIMPLEMENTED"


def test_calls_of_one_bucket_have_their_exact_sum(reader: InMemoryMetricReader) -> None:
    durations = recorded()
    add(durations, "/t.T/Get", "OK", 0.0001, 0.0002, 0.0009)
    durations.record(durations.take())
    assert durations_of(reader)["t.T/Get", "OK"].sum == pytest.approx(0.0012)


def test_more_calls_than_the_limit_are_thinned(reader: InMemoryMetricReader) -> None:
    durations = recorded()
    add(durations, "/t.T/Get", "OK", *[0.5] * MAX_VALUES)
    add(durations, "/t.T/Set", "OK", *[0.5] * MAX_VALUES)
    durations.record(durations.take())
    found = durations_of(reader)
    assert {key: point.count for key, point in found.items()} == dict.fromkeys(
        [("t.T/Get", "OK"), ("t.T/Set", "OK")], MAX_VALUES // 2
    )


async def test_what_is_left_is_flushed_at_the_end(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flushed: list[str] = []

    def flush(*_: Any, **__: Any) -> bool:
        flushed.append("all")
        raise RuntimeError("the collector is gone")

    monkeypatch.setattr(MeterProvider, "force_flush", flush)
    await Telemetry().shut_down_within(30)
    assert flushed == ["all"]
    assert "the last spans or metrics of a provider were not exported" in caplog.text
    assert "the collector is gone" in caplog.text


async def test_a_replica_records_with_a_provider_that_is_set_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(replica_telemetry, "EXPORT_INTERVAL_S", 0.01)
    monkeypatch.setattr(replica_telemetry, "trace_calls", lambda *_: None)
    replica = SimpleNamespace(unique_id="r1")
    context = SimpleNamespace(app_name="shop", deployment="Till", replica_id=replica)
    server, calls = SimpleNamespace(host=SimpleNamespace(spans=None)), SimpleNamespace(durations=None)
    telemetry = ReplicaTelemetry(server, calls, context, ())  # type: ignore[arg-type]
    telemetry.start()
    assert calls.durations is None
    reader = request.getfixturevalue("reader")
    telemetry.follow_provider()
    telemetry.follow_provider()
    add(calls.durations, "/t.T/Get", "OK", 0.2)
    while reader.get_metrics_data() is None:
        await asyncio.sleep(0.01)
    add(calls.durations, "/t.T/Get", "OK", 0.2)
    await telemetry.stop()
    assert durations_of(reader)["t.T/Get", "OK"].count == 2

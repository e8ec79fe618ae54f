"""Collectors that refuse, hang, or are slow: what is logged, what is lost, and that nothing else waits."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from sdk._otel.exports import Outage, count_overflows, watch
from tests.support.loops import PATIENCE_S

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("tests")


def spans(number: int) -> list[Any]:
    return [TRACER.start_span("a") for _ in range(number)]


class Exporter:
    """Returns or raises what it is given, one after the other."""

    def __init__(self, *results: Any) -> None:
        self._results = iter(results)

    def export(self, data: Any) -> Any:
        result = next(self._results)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Return what OpenTelemetry and we have logged about it. Handles of earlier tests may log in their own thread."""
    caplog.set_level(logging.DEBUG)
    return lambda: [
        (record.name, re.sub(r"after \d+ s", "after … s", record.getMessage()))
        for record in caplog.records
        if record.name.startswith(("opentelemetry.exporter", "opentelemetry.sdk", "sdk.tracing"))
    ]


@pytest.fixture(params=["refuses", "hangs"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        if request.param == "refuses":
            server.close()
            with socket.socket() as unused:
                unused.bind(("127.0.0.1", 0))  # and does not listen
                yield unused.getsockname()[1]
        else:
            yield server.getsockname()[1]  # the kernel accepts; nobody reads


@pytest.mark.parametrize(
    "make",
    [
        lambda port: OTLPSpanExporter(f"http://127.0.0.1:{port}", timeout=0.1),
        lambda port: HttpSpanExporter(f"http://127.0.0.1:{port}/v1/traces", timeout=0.1),
    ],
    ids=["grpc", "http"],
)
def test_one_line_while_a_collector_takes_nothing(make: Any, port: int, lines: Any) -> None:
    exporter = watch(make(port), Outage("traces"))
    for _ in range(3):
        assert exporter.export(spans(1)) is SpanExportResult.FAILURE
    exporter.shutdown()
    ((name, text),) = lines()
    assert name == "sdk.tracing"
    assert text.startswith("OpenTelemetry can't export spans: Failed to export ")
    assert text.endswith(". Calls are served; the end of this is logged")


def test_the_end_is_logged_with_what_was_lost(lines: Any) -> None:
    ok, failed = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
    exporter = watch(Exporter(ok, ValueError("full"), failed, ok, ok, failed), Outage("traces"))
    for number in (1, 2, 3, 4, 5):
        exporter.export(spans(number))
    assert [text for _, text in lines()] == [
        "OpenTelemetry can't export spans: ValueError('full'). Calls are served; the end of this is logged",
        "OpenTelemetry exports spans again, after … s; 5 were lost",
    ]
    exporter.export(spans(1))
    assert lines()[-1][1].startswith("OpenTelemetry can't export spans: the exporter gives no reason.")


def test_what_an_outage_has_cost_is_logged_at_the_end_of_the_process(lines: Any) -> None:
    outage = Outage("metrics")
    outage.close()
    watch(Exporter(None), outage).export(object())
    outage.close()
    assert [text for _, text in lines()][1:] == [
        "OpenTelemetry could not export metrics until the end of this process, after … s"
    ]


def test_other_exporters_of_the_process_log_as_before(lines: Any) -> None:
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
    watch(OTLPSpanExporter("http://127.0.0.1:1"), Outage("traces")).shutdown()
    logger.warning("by another exporter")
    assert lines() == [(logger.name, "by another exporter")]


class Slow:
    """Takes each batch when it is allowed to."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.taken = 0

    def export(self, data: Any) -> SpanExportResult:
        self.has_begun.set()
        self.may_end.wait()
        self.taken += len(data)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


def test_a_slow_collector_costs_spans_and_no_memory(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("opentelemetry.sdk._shared_internal")
    monkeypatch.setattr(logger, "filters", list(logger.filters))
    slow, outage = Slow(), Outage("traces")
    count_overflows(outage)
    processor: Any = BatchSpanProcessor(watch(slow, outage), max_queue_size=8, max_export_batch_size=4)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("tests")
    for _ in range(4):
        tracer.start_span("a").end()
    assert slow.has_begun.wait(PATIENCE_S)
    for _ in range(1000):
        tracer.start_span("a").end()
    assert len(processor._batch_processor._queue) == 8
    ((_, text),) = lines()
    assert text.startswith("OpenTelemetry can't export spans: more of them end than the collector takes; sample fewer")
    slow.may_end.set()
    processor.force_flush()
    processor.force_flush()
    provider.shutdown()
    assert slow.taken == 12
    assert [text for _, text in lines()][1:] == ["OpenTelemetry exports spans again, after … s; 992 were lost"]

"""A collector: receives spans, metrics and logs by OTLP over gRPC, logs over HTTP too, and keeps them.

https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.certificates import Pair
from tests.support.loops import PATIENCE_S


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@dataclass(frozen=True)
class ReceivedSpan:
    """A span with its resource's attributes.

    Attributes:
        name: The kind and the name, ``"server greet.Greeter/SayHello"``.
        id: The span's id.
        parent: That of its parent, or nothing.
        trace: The trace's id.
        attributes: Its attributes.
        resource: Those of the process.
        error: True if its status says so.
    """

    name: str
    id: str
    parent: str
    trace: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    error: bool


@dataclass(frozen=True)
class ReceivedLog:
    """A log record with its resource's attributes.

    Attributes:
        body: Its text.
        attributes: Its attributes.
        resource: Those of the process.
        time: Seconds since the epoch.
        headers: Headers of the request that brought it.
    """

    body: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    time: float
    headers: dict[str, str]


class Received:
    """All that has arrived.

    Attributes:
        spans: The spans.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.spans: list[ReceivedSpan] = []
        self._points: list[tuple[str, dict[str, Any], HistogramDataPoint]] = []
        self._logs: list[ReceivedLog] = []
        self.address = ""

    def take_spans(self, request: traces.ExportTraceServiceRequest, _: Any) -> traces.ExportTraceServiceResponse:
        found = [
            ReceivedSpan(
                f"{Span.SpanKind.Name(span.kind).removeprefix('SPAN_KIND_').lower()} {span.name}",
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.trace_id.hex(),
                attributes(span.attributes),
                attributes(group.resource.attributes),
                span.status.code == 2,
            )
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        with self._changed:
            self.spans += found
            self._changed.notify_all()
        return traces.ExportTraceServiceResponse()

    def take_metrics(
        self, request: metrics.ExportMetricsServiceRequest, _: Any
    ) -> metrics.ExportMetricsServiceResponse:
        with self._changed:
            self._points += [
                (metric.name, attributes(group.resource.attributes), point)
                for group in request.resource_metrics
                for scope in group.scope_metrics
                for metric in scope.metrics
                for point in metric.histogram.data_points
            ]
            self._changed.notify_all()
        return metrics.ExportMetricsServiceResponse()

    def take_logs(self, request: logs.ExportLogsServiceRequest, context: Any) -> logs.ExportLogsServiceResponse:
        self._add_logs(request, dict(context.invocation_metadata()))
        return logs.ExportLogsServiceResponse()

    def _add_logs(self, request: logs.ExportLogsServiceRequest, headers: dict[str, str]) -> None:
        with self._changed:
            self._logs += [
                ReceivedLog(
                    record.body.string_value,
                    attributes(record.attributes),
                    attributes(group.resource.attributes),
                    record.time_unix_nano / 1e9,
                    headers,
                )
                for group in request.resource_logs
                for scope in group.scope_logs
                for record in scope.log_records
            ]
            self._changed.notify_all()

    def logs(self, number: int) -> list[ReceivedLog]:
        """Wait for a number of log records, and return them.

        Raises:
            TimeoutError: They were not in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._logs) >= number, PATIENCE_S):
                raise TimeoutError(f"only these records have arrived: {self._logs}")
            return list(self._logs)

    def trace(self, trace_id: str, is_complete: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
        """Wait until the spans of a trace are complete, and return them.

        Raises:
            TimeoutError: They were not in time.
        """

        def found() -> list[ReceivedSpan]:
            return [span for span in self.spans if span.trace == trace_id]

        with self._changed:
            if not self._changed.wait_for(lambda: is_complete(found()), PATIENCE_S):
                raise TimeoutError(f"only these spans have arrived: {[span.name for span in found()]}")
            return found()

    def points(
        self, name: str, is_complete: Callable[[list[Any]], bool]
    ) -> list[tuple[dict[str, Any], HistogramDataPoint]]:
        """Wait until the data points of a histogram are complete, and return them with their resource's attributes.

        Raises:
            TimeoutError: They were not in time.
        """

        def found() -> list[Any]:
            return [(resource, point) for known, resource, point in self._points if known == name]

        with self._changed:
            if not self._changed.wait_for(lambda: is_complete(found()), PATIENCE_S):
                raise TimeoutError(f"only these points have arrived: {found()}")
            return found()


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


@contextmanager
def receiving(tls: Pair | None = None) -> Iterator[Received]:
    """Run a collector on a free port of loopback.

    Args:
        tls: Its certificate; None for plain text.
    """
    received = Received()
    server = grpc.server(ThreadPoolExecutor(2))
    for service, handler, request in (
        ("trace.v1.Trace", received.take_spans, traces.ExportTraceServiceRequest),
        ("metrics.v1.Metrics", received.take_metrics, metrics.ExportMetricsServiceRequest),
        ("logs.v1.Logs", received.take_logs, logs.ExportLogsServiceRequest),
    ):
        export: Any = grpc.unary_unary_rpc_method_handler(handler, request.FromString, _serialize)
        name = f"opentelemetry.proto.collector.{service}Service"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": export}),))
    if tls is None:
        received.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        credentials = grpc.ssl_server_credentials([(tls.key, tls.certificate)])
        received.address = f"https://localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()


@contextmanager
def receiving_over_http() -> Iterator[Received]:
    """Run a collector that takes logs over HTTP, on a free port of loopback."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = b""
            while size := int(self.rfile.readline(), 16):  # Envoy sends chunks
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            headers = {key.lower(): value for key, value in self.headers.items()}
            received._add_logs(logs.ExportLogsServiceRequest.FromString(body), {**headers, ":path": self.path})
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        received.address = f"http://localhost:{server.server_port}"
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()

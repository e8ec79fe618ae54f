"""Spans kept in memory, of a tracer provider that only one test has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sdk._tracing import current
from sdk._tracing.spans import Tracing

#: Metadata of a client that samples its call, and of one that does not.
SAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
NOT_SAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


class Spans:
    """The ended spans.

    Attributes:
        provider: Makes them.
        tracing: Makes those of calls.
    """

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider)
        self.tracer = self.provider.get_tracer("test")

    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def one(self, name: str = "") -> Any:
        """Return the one span with a name."""
        (found,) = [span for span in self.all() if not name or span.name == name]
        return found

    def parents(self) -> dict[str, str]:
        """Return the name of each span's parent by its own name, with the kind: "/remote" for one elsewhere."""
        names = {span.context.span_id: label(span) for span in self.all()}
        return {label(span): names.get(span.parent.span_id, "remote") if span.parent else "" for span in self.all()}


def label(span: ReadableSpan) -> str:
    return f"{span.kind.name.lower()} {span.name}"


@contextmanager
def collected(**options: Any) -> Iterator[Spans]:
    """Collect the spans of calls in this process."""
    spans, before = Spans(**options), current.tracing
    current.tracing = spans.tracing
    try:
        yield spans
    finally:
        current.tracing = before
        spans.provider.shutdown()

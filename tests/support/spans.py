"""Spans kept in memory, of a tracer provider that only one test has."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from sdk._otel import current
from sdk._otel.spans import Tracing
from tests.support.loops import PATIENCE_S

#: Metadata of a client that samples its call, and of one that does not.
SAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
NOT_SAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


class Spans(SpanExporter):
    """The ended spans.

    Attributes:
        provider: Makes them.
        tracing: Makes those of calls.
        tracer: Makes those of handlers.
    """

    def __init__(self, **options: Any) -> None:
        self._changed = threading.Condition()
        self._ended: list[ReadableSpan] = []
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self))
        self.tracing = Tracing(self.provider)
        self.tracer = self.provider.get_tracer("test")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._changed:
            self._ended += spans
            self._changed.notify_all()
        return SpanExportResult.SUCCESS

    def clear(self) -> None:
        with self._changed:
            self._ended.clear()

    def all(self) -> list[ReadableSpan]:
        return list(self._ended)

    def wait(self, count: int) -> list[Any]:
        """Return the ended spans once there are so many.

        Raises:
            TimeoutError: They did not end in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._ended) >= count, PATIENCE_S):
                raise TimeoutError(f"only these spans have ended: {[label(span) for span in self._ended]}")
            return list(self._ended)

    def one(self) -> Any:
        """Return the one span: that of a call may end a moment after its answer has come."""
        (found,) = self.wait(1)
        return found

    def edges(self, count: int) -> list[tuple[str, str]]:
        """Return the parent and the name of each span, once there are so many; "" is the parent of a root."""
        spans = self.wait(count)
        names = {span.context.span_id: label(span) for span in spans}
        return sorted((names.get(span.parent.span_id, "remote") if span.parent else "", label(span)) for span in spans)


def label(span: ReadableSpan) -> str:
    return f"{span.kind.name.lower()} {span.name}"


@contextmanager
def collected(**options: Any) -> Iterator[Spans]:
    """Collect the spans of this process."""
    spans = Spans(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", spans.provider)  # the public function sets one for good
        patch.setattr(current, "tracing", spans.tracing)
        yield spans
    spans.provider.shutdown()

"""Spans of calls: made, passed on in metadata, and ended by the conventions.

The context that a client sends is read, and that of a call is sent, by the propagators that ``OTEL_PROPAGATORS`` names:
W3C's ``traceparent``, ``tracestate`` and ``baggage`` by default (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import Getter

from sdk._otel import conventions as rpc

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    Attributes: TypeAlias = Mapping[str, str | int]

# The key by which instrumentations ask others to make no spans.
_SUPPRESS = "suppress_instrumentation"
_EMPTY = contexts.Context()


class _Headers(Getter[Mapping[bytes, bytes]]):
    """Reads the headers of a request."""

    def get(self, carrier: Mapping[bytes, bytes], key: str) -> list[str] | None:
        value = carrier.get(key.encode("latin-1"))
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Mapping[bytes, bytes]) -> list[str]:
        return [key.decode("latin-1") for key in carrier]


_HEADERS = _Headers()


class Tracing:
    """Makes the spans of a process.

    Args:
        provider: The tracer provider.

    Attributes:
        is_enabled: False if the provider makes no spans: ``OTEL_SDK_DISABLED``.
        metadata_keys: Keys of the metadata that carries a context.
        header_names: The same as names of headers.
    """

    def __init__(self, provider: trace.TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer(*rpc.scope())
        self.is_enabled = not isinstance(self._tracer, trace.NoOpTracer)
        self.metadata_keys = frozenset(propagate.get_global_textmap().fields)
        self.header_names = frozenset(key.encode("latin-1") for key in self.metadata_keys)
        sampler = getattr(provider, "sampler", None)
        # Then no sampler needs to be asked about the call of a client that does not sample it.
        self._follows_clients = sampler is not None and "remoteParentNotSampled:AlwaysOff" in sampler.get_description()

    # -- servers ------------------------------------------------------------------------------

    def extract(self, headers: Mapping[bytes, bytes]) -> Context:
        """Return the context that a client has sent; empty if it has sent none.

        Args:
            headers: The request's headers.
        """
        return propagate.extract(headers, _EMPTY, _HEADERS)

    def is_sampled(self, context: Context) -> bool:
        """Return True if a context has a span that is sampled."""
        return trace.get_current_span(context).get_span_context().trace_flags.sampled

    def start_server(self, name: str, context: Context, attributes: Attributes) -> tuple[Span | None, Context]:
        """Start the span of a call that a server has received.

        Args:
            name: Its name.
            context: The context that the client has sent.
            attributes: Its attributes, for the sampler.

        Returns:
            The span, or None if it is not sampled; and the context for the handler.
        """
        if self._follows_clients:
            parent = trace.get_current_span(context).get_span_context()
            if parent.is_valid and not parent.trace_flags.sampled:
                return None, context
        span = self._tracer.start_span(name, context, trace.SpanKind.SERVER, attributes)
        return span if span.is_recording() else None, trace.set_span_in_context(span, context)

    def add_server(
        self,
        name: str,
        context: Context,
        attributes: Attributes,
        status: str,
        description: str,
        *,
        began: int,
        ended: int,
    ) -> None:
        """Make the span of a call that is over.

        Args:
            name: Its name.
            context: The context that the client has sent.
            attributes: Its attributes.
            status: Name of the status code.
            description: What went wrong, if that is an error of the server.
            began: When the call began, in nanoseconds since the epoch.
            ended: When it ended.
        """
        span = self._tracer.start_span(name, context, trace.SpanKind.SERVER, attributes, start_time=began)
        _end(span, status, description, is_error=status in rpc.SERVER_ERRORS, ended=ended)

    # -- clients ------------------------------------------------------------------------------

    def carries(self, lines: bytes) -> bool:
        """Return True if header lines carry a context."""
        return any(lines.startswith(name + b":") or b"\n%s:" % name in lines for name in self.header_names)

    def start_client(self, name: str, attributes: Attributes) -> tuple[Span | None, dict[str, str]]:
        """Start the span of a call that this process makes, in the context of the caller.

        Args:
            name: Its name.
            attributes: Its attributes, for the sampler.

        Returns:
            The span, or None if it is not sampled; and the metadata that carries its context.
        """
        carrier: dict[str, str] = {}
        context = contexts.get_current()
        if context.get(_SUPPRESS):
            propagate.inject(carrier, context)
            return None, carrier
        span = self._tracer.start_span(name, context, trace.SpanKind.CLIENT, attributes)
        propagate.inject(carrier, trace.set_span_in_context(span, context))
        return span if span.is_recording() else None, carrier


def begun_trace(context: Context) -> str | None:
    """Return the ``traceparent`` of a span that begins a trace which is sampled; None for any other.

    Args:
        context: The context of a server's span.
    """
    span = trace.get_current_span(context)
    if not span.is_recording() or getattr(span, "parent", None) is not None:
        return None
    found = span.get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def enter(context: Context) -> None:
    """Make a context the current one of a task, until its end."""
    contexts.attach(context)


def suppressed() -> Any:
    """Return the token for :func:`restore`, after asking OpenTelemetry's own instrumentation of grpc for no spans."""
    if "opentelemetry.instrumentation.grpc" not in sys.modules:
        return None
    return contexts.attach(contexts.set_value(_SUPPRESS, True))


def restore(token: Any) -> None:
    """Return to the context before :func:`suppressed`."""
    if token is not None:
        contexts.detach(token)


def end_server(span: Span, status: str, description: str) -> None:
    """End the span of a call that a server has answered.

    Args:
        span: The span.
        status: Name of the status code.
        description: What went wrong, if that is an error of the server.
    """
    _end(span, status, description, is_error=status in rpc.SERVER_ERRORS)


def end_client(span: Span, status: str, description: str, error_type: str = "") -> None:
    """End the span of a call that this process has made.

    Args:
        span: The span.
        status: Name of the status code.
        description: What went wrong.
        error_type: The class of the exception that ended the call, if no status did.
    """
    _end(span, status, description, is_error=status != "OK", error_type=error_type)


def _end(
    span: Span, status: str, description: str, *, is_error: bool, error_type: str = "", ended: int | None = None
) -> None:
    span.set_attribute(rpc.STATUS_CODE, status)
    if is_error:
        span.set_attribute(rpc.ERROR_TYPE, error_type or status)
        span.set_status(trace.StatusCode.ERROR, description or None)
    span.end(ended)


def add_message(span: Span, kind: str, number: int, size: int | None) -> None:
    """Add the event of one message to a span.

    Args:
        span: The span.
        kind: ``"SENT"`` or ``"RECEIVED"``.
        number: The message's number in its direction, from 1.
        size: Its bytes before compression; None if they are not known.
    """
    attributes: dict[str, str | int] = {rpc.MESSAGE_TYPE: kind, rpc.MESSAGE_ID: number}
    if size is not None:
        attributes[rpc.MESSAGE_SIZE] = size
    span.add_event(rpc.MESSAGE_EVENT, attributes)


def header_lines(metadata: Iterable[tuple[str, str]]) -> bytes:
    """Return metadata that carries a context as header lines."""
    return b"".join(b"%s: %s\r\n" % (key.encode("latin-1"), value.encode("latin-1")) for key, value in metadata)

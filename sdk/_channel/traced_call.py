"""Calls through a handle with a span, by OpenTelemetry's conventions for a gRPC client.

The span begins when the call is made and ends with it: a stream's with its last message, or when nobody reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sdk._channel.call import OutgoingCall
from sdk._otel import conventions as rpc
from sdk._otel.spans import Tracing, end_client, header_lines
from sdk.errors import RpcError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from sdk._channel.target import Target


class TracedOutgoingCall(OutgoingCall):
    """A call with a span.

    Args:
        span: The span.
        target: The deployment.
        lines: First lines of the request's head.
        body: The request message; None for a stream of them.
        options: The keyword arguments of :class:`OutgoingCall`.
    """

    __slots__ = ("_span",)

    def __init__(self, span: Span, target: Target, lines: bytes, body: bytes | None, **options: Any) -> None:
        super().__init__(target, lines, body, **options)
        self._span = span

    def _finish(self) -> None:
        error = self._error
        if error is None:
            end_client(self._span, "OK", "")
        elif isinstance(error, RpcError):
            end_client(self._span, error.code.name, error.details)
        else:  # of the caller's iterator of requests
            kind = type(error)
            end_client(self._span, "CANCELLED", str(error), f"{kind.__module__}.{kind.__qualname__}")
        super()._finish()


def traced(tracing: Tracing, path: str, target: Target) -> tuple[Callable[..., OutgoingCall], bytes]:
    """Start the span of a call.

    Args:
        tracing: Makes it.
        path: The method's path.
        target: The deployment.

    Returns:
        The constructor of the call; and the header lines that carry the span's context.
    """
    application, deployment = target.key
    name = path[1:]
    attributes = {rpc.SYSTEM: rpc.GRPC, rpc.METHOD: name, rpc.SERVER_ADDRESS: f"{application}/{deployment}"}
    span, carrier = tracing.start_client(name, attributes)
    make = OutgoingCall if span is None else partial(TracedOutgoingCall, span)
    return make, header_lines(carrier.items())

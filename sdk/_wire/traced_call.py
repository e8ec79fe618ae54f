"""Calls with a span. An untraced call costs a look at ``Host.spans``, and runs none of this.

The span is that of OpenTelemetry's conventions for a gRPC server; it begins when the request's head has arrived, and
ends when the response is out, or nobody waits for it. The handler, and all that it calls, runs in the context of the
span.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, cast

from sdk._otel import conventions as rpc
from sdk._otel.spans import Tracing, add_message, begun_trace, end_server, enter
from sdk._wire.call import Call
from sdk._wire.call_counts import STATUS_NAMES
from sdk.errors import RpcError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from sdk._wire.call import Transport
    from sdk._wire.host import Host
    from sdk._wire.route import Route

# The authority that a replica sends to another one.
_REPLICA = b"replica"


class ServerSpans:
    """Makes the calls of one server with their spans.

    Args:
        tracing: Makes the spans.
        attributes: Attributes of every span, such as the application's name.
        events: Add an event for each message.
        only_of_clients: Calls of known methods get a span only if the client samples them; for the services that a
            proxy answers, which load balancers call all the time.
    """

    def __init__(
        self,
        tracing: Tracing,
        attributes: dict[str, str] | None = None,
        *,
        events: bool = False,
        only_of_clients: bool = False,
    ) -> None:
        self.tracing = tracing
        self._attributes = {rpc.SYSTEM: rpc.GRPC, **(attributes or {})}
        self._traced = CallWithEvents if events else TracedCall
        self._only_of_clients = only_of_clients

    def new_call(
        self,
        host: Host,
        transport: Transport,
        route: Route | None,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
        on_finished: Callable[[Call], None],
        kind: type[Call] = Call,
        **options: Any,
    ) -> Call:
        """Return a call, as the constructor of its class does.

        Args:
            host: Limits, counters and hooks.
            transport: Takes the response.
            route: The method and its handler; None if there is no such method.
            path: Path of the method, or the request's path if there is no such method.
            headers: The request's headers.
            fields: The headers by name.
            on_finished: Called once, when the response has been handed to the transport.
            kind: The class: that of gRPC, or of another protocol.
            options: Further arguments of its constructor.
        """
        context = self.tracing.extract(fields)
        if route is not None and self._only_of_clients and not self.tracing.is_sampled(context):
            return kind(host, transport, route, path, headers, fields, on_finished, **options)
        name, attributes = rpc.GRPC, dict(self._attributes)
        if route is None:
            attributes[rpc.METHOD] = rpc.OTHER
            attributes[rpc.METHOD_ORIGINAL] = path.decode("latin-1")[1:]
        else:
            name = attributes[rpc.METHOD] = route.method.path[1:]
        authority = fields.get(b"host", b"")
        span, context = self.tracing.start_server(name, context, {**attributes, **_server_attributes(authority)})
        call = _with_span(self._traced, cast("Any", kind))(
            host, transport, route, path, headers, fields, on_finished, **options
        )
        call.span, call.trace_context = span, context
        if span is not None and (begun := begun_trace(context)) is not None:
            call.begun = begun
        if span is not None:
            span.set_attribute("ray.serve.request_id", call.request_id)
            # Those of an inner call are the outer client's, which is not the peer of this connection.
            if authority != _REPLICA and (peer := fields.get(b"x-forwarded-for")):
                address, port = rpc.split_target(peer.decode("latin-1"))
                span.set_attribute(rpc.PEER_ADDRESS, address)
                if port is not None:
                    span.set_attribute(rpc.PEER_PORT, port)
        return call


@cache
def _with_span(traced: type[TracedCall], kind: Any) -> Callable[..., TracedCall]:
    """Return the class of calls of this kind with a span."""
    response = _WebTrace if hasattr(kind, "common_headers") else _GrpcTrace
    return type(f"{traced.__name__}{kind.__name__}", (traced, response, kind), {})


@lru_cache(maxsize=256)
def _server_attributes(authority: bytes) -> dict[str, Any]:
    """Return the attributes for the authority that a client has used."""
    if not authority or authority == _REPLICA:
        return {}
    address, port = rpc.split_target(authority.decode("latin-1"))
    return {rpc.SERVER_ADDRESS: address} if port is None else {rpc.SERVER_ADDRESS: address, rpc.SERVER_PORT: port}


class TracedCall(Call):
    """A call with a span, or one that is not sampled: its handler runs in a context that says so.

    Without slots, so that it can be joined with the call of another protocol.

    Attributes:
        span: The span; None if it is not sampled.
        trace_context: The context for the handler.
        begun: The ``traceparent`` of the span, if it begins a trace. The response has it as ``traceresponse``
            (https://www.w3.org/TR/trace-context-2/#traceresponse-header), for Envoy's access log and for clients.
    """

    span: Span | None
    trace_context: Context
    begun: str | None = None
    _description = ""

    @property
    def traceparent(self) -> str | None:
        """The trace of the call."""
        return self.begun or super().traceparent

    async def _run(self, route: Route) -> None:
        enter(self.trace_context)  # the task ends with the call, and its context with it
        await super()._run(route)

    def _finish_with_error(self, error: BaseException) -> None:
        span = self.span
        if span is not None and not self._finished:
            answered = self.aborted or self.host.translate_error(error)
            if not isinstance(answered, RpcError):
                span.record_exception(error)
                self._description = f"{type(error).__name__}: {error}"
        super()._finish_with_error(error)

    def finish_with(self, code: int, details: str) -> None:
        if not self._finished:
            self._description = self._description or details
        super().finish_with(code, details)

    def _finish(self) -> None:
        super()._finish()
        span, self.span = self.span, None
        if span is not None:
            description = self._description or self.details
            if not description and self._cancel_reason is not None:
                description = self._cancel_reason[1]
            end_server(span, STATUS_NAMES[self.status], description)


class _GrpcTrace(Call):
    """The response of a gRPC call whose span begins a trace."""

    __slots__ = ()
    begun: str | None

    def send_only(self, data: bytes, flag: int = 0) -> None:
        if self.begun is None or self._finished:
            super().send_only(data, flag)
        else:  # with another head
            self.send(data, flag, is_last=True)

    def _head(self) -> bytes:
        return self._with_trace(super()._head())

    def _without_messages(self, code: int, trailers: bytes) -> bytes:
        return self._with_trace(super()._without_messages(code, trailers))

    def _with_trace(self, response: bytes) -> bytes:
        if self.begun is None:
            return response
        status, _, rest = response.partition(b"\r\n")
        return b"%s\r\ntraceresponse: %s\r\n%s" % (status, self.begun.encode(), rest)


class _WebTrace(Call):
    """The response in another protocol."""

    __slots__ = ()
    begun: str | None

    def common_headers(self) -> bytes:
        lines: bytes = super().common_headers()  # type: ignore[misc]  # of WebCall, with which this class is joined
        return lines if self.begun is None else b"%straceresponse: %s\r\n" % (lines, self.begun.encode())


class CallWithEvents(TracedCall):
    """A call whose span has an event for each message."""

    _received_count = _sent_count = 0

    def send(self, data: bytes, flag: int = 0, *, is_last: bool = False) -> None:
        if not is_last:  # else send_only has called it
            self._add_sent(data, flag)
        super().send(data, flag, is_last=is_last)

    def send_only(self, data: bytes, flag: int = 0) -> None:
        self._add_sent(data, flag)
        super().send_only(data, flag)

    def take_message(self) -> bytes | bytearray:
        return self._add_received(super().take_message())

    async def next_message(self) -> bytes | bytearray | None:
        message = await super().next_message()
        return None if message is None else self._add_received(message)

    def _add_sent(self, data: bytes, flag: int) -> None:
        if self.span is not None:
            self._sent_count += 1
            add_message(self.span, "SENT", self._sent_count, None if flag else len(data))

    def _add_received(self, message: bytes | bytearray) -> bytes | bytearray:
        if self.span is not None:
            self._received_count += 1
            add_message(self.span, "RECEIVED", self._received_count, len(message))
        return message

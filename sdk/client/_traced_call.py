"""Spans of calls through generated clients, by OpenTelemetry's conventions for a gRPC client."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from sdk._otel import conventions as rpc
from sdk._otel.spans import Tracing, end_client, restore, suppressed

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.trace import Span


class ClientSpan:
    """The span of one call. Entered, it covers the start of the call; :meth:`follow` then waits for its end.

    OpenTelemetry's own instrumentation of grpc, if the program has installed it, makes no second one.

    Args:
        tracing: Makes the span.
        path: The method's path.
        address: The target of the channel; empty for a channel without a name.
        arguments: The keyword arguments for grpc.

    Attributes:
        arguments: The same, with the metadata that carries the span's context.
    """

    def __init__(self, tracing: Tracing, path: str, address: str, arguments: dict[str, Any]) -> None:
        self._span: Span | None = None
        self.arguments = arguments
        self._token: Any = None
        if any(key in tracing.metadata_keys for key, _ in arguments["metadata"]):
            return  # the program passes a context on itself
        attributes: dict[str, Any] = {rpc.SYSTEM: rpc.GRPC, rpc.METHOD: path[1:]}
        if address:
            attributes[rpc.SERVER_ADDRESS], port = rpc.split_target(address)
            if port is not None:
                attributes[rpc.SERVER_PORT] = port
        self._span, carrier = tracing.start_client(path[1:], attributes)
        self.arguments = {**arguments, "metadata": (*arguments["metadata"], *carrier.items())}

    def __enter__(self) -> None:
        self._token = suppressed()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        restore(self._token)
        if error is None or self._span is None:
            return
        if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
            end_client(self._span, error.code().name, error.details())
        else:
            end_client(self._span, "UNKNOWN", str(error), f"{type(error).__module__}.{type(error).__qualname__}")

    def follow(self, call: Any, *, is_call: bool) -> None:
        """End the span with the call.

        Args:
            call: The call, or the response of a call that has succeeded.
            is_call: False for the response.
        """
        span = self._span
        if span is None:
            return
        if not is_call:
            end_client(span, "OK", "")
        elif hasattr(call, "add_done_callback") and isinstance(call, grpc.aio.Call):
            call.add_done_callback(partial(_end_async, span))
        else:
            # What is bound to the call must not refer to it: it is cancelled when nobody refers to it any more.
            state = getattr(call, "_state", call)
            if not call.add_callback(partial(_end_sync, span, state)):
                _end_sync(span, state)


def _end_async(span: Span, call: Any) -> None:
    status = _result(call.code())
    if status is grpc.StatusCode.OK:
        end_client(span, "OK", "")
    else:
        end_client(span, status.name, _result(call.details()) or "")


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that does not wait, since the call has ended."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("a call that has ended has no status")


def _end_sync(span: Span, state: Any) -> None:
    code = state.code() if callable(state.code) else state.code
    details = state.details() if callable(state.details) else state.details
    if isinstance(details, bytes):
        details = details.decode("utf-8", "replace")
    end_client(span, code.name, "" if code is grpc.StatusCode.OK else details or "")

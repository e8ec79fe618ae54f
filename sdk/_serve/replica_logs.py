"""Logs of a replica: one line for each call, and what the user's own loggers log, with the call that they are about.

Both go where Ray Serve's lines go, by its logging configuration
(https://docs.ray.io/en/latest/serve/monitoring.html#ray-logging): the replica's log file, and stderr.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from sdk._serve.internals import access_log_context, add_to_logs, file_of, logs_accesses, repair_redirected_print
from sdk._wire.call_counts import STATUS_NAMES
from sdk.context import current_call

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.server import WireServer

_serve_logger = logging.getLogger("ray.serve")
# Seconds after which the line of a call is written, with those of the calls that have ended meanwhile.
_FLUSH_S = 0.05
# Most lines that wait to be written.
_MAX_LINES = 1000
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


class _ServeLog(logging.Handler):
    """Logs like Ray Serve's own logger, with its handlers and its level.

    Args:
        flush_calls: Writes the lines of calls that wait. ``logging.shutdown`` flushes every handler, at exit too.
    """

    def __init__(self, flush_calls: Callable[[], None]) -> None:
        super().__init__()
        self._flush_calls = flush_calls

    def flush(self) -> None:
        self._flush_calls()

    def emit(self, record: logging.LogRecord) -> None:
        if _serve_logger.isEnabledFor(record.levelno):
            _serve_logger.handle(record)


class _CallFilter(logging.Filter):
    """Names method and trace id of the current call in each record; Ray Serve names request id and application."""

    def filter(self, record: logging.LogRecord) -> bool:
        call = current_call()
        fields = record.__dict__
        if call is not None and "skip_context_filter" not in fields:
            fields.setdefault("method", call.path.decode("latin-1"))
            trace_id = _current_trace_id() or trace_id_of(call.header(b"traceparent"))
            if trace_id:
                fields.setdefault("trace_id", trace_id)
        return True


_CALL_FILTER = _CallFilter()


def trace_id_of(traceparent: str | None) -> str:
    """Return the trace id of a call, or an empty string.

    Args:
        traceparent: What its caller sent.

    Example:
        >>> trace_id_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        '4bf92f3577b34da6a3ce929d0e0e4736'
        >>> trace_id_of("00-00000000000000000000000000000000-00f067aa0ba902b7-01")
        ''
    """
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return found[1] if found is not None else ""


def _current_trace_id() -> str:
    """Return the trace id of OpenTelemetry's current span, which a call without ``traceparent`` may have, too."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    context = trace.get_current_span().get_span_context() if trace is not None else None
    return f"{context.trace_id:032x}" if context is not None and context.is_valid else ""


class ReplicaLogs:
    """The logs of one replica. Made before the user's class, whose constructor may log.

    Loggers without a handler use Ray Serve's handlers. A program that configures ``logging`` itself keeps its own.
    """

    def __init__(self) -> None:
        repair_redirected_print()
        add_to_logs(_CALL_FILTER)
        # The wire server's lines follow Ray Serve's logging configuration, whatever the program configures.
        logging.getLogger("sdk").parent = _serve_logger
        self._calls: CallLog | None = None
        logging.lastResort = _ServeLog(self.flush)
        self._level = logging.root.level
        self._follow_level()

    def follow_configuration(self, server: WireServer) -> None:
        """Apply Ray Serve's logging configuration, which may change at run time.

        Args:
            server: The server whose calls are logged.
        """
        self._follow_level()
        add_to_logs(_CALL_FILTER)
        logs_calls = logs_accesses()
        if logs_calls != (self._calls is not None):
            self.flush()
            self._calls = server.host.on_end = CallLog() if logs_calls else None

    def flush(self) -> None:
        """Write the lines of all calls that have ended."""
        if self._calls is not None:
            self._calls.flush()

    def _follow_level(self) -> None:
        # A level that somebody else has set stays.
        if logging.root.level == self._level and not logging.root.handlers:
            self._level = _serve_logger.getEffectiveLevel()
            logging.root.setLevel(self._level)


# Time, path, status, seconds, request id, ``traceparent``.
_Ended: TypeAlias = tuple[float, bytes, int, float, str, "str | None"]


class CallLog:
    """Logs the end of each call in the form of Ray Serve: ``CALL /greet.Greeter/SayHello OK 1.2ms``.

    A call only adds to a list. Its line is written with others: Ray Serve's handlers look for their file and flush it
    for each record, which costs more than the rest of a short call. A process that is killed or
    crashes loses the lines of its last 50 ms.
    """

    def __init__(self) -> None:
        # What filters would find out again for each line.
        self._context = access_log_context()
        self._ended: list[_Ended] = []

    def __call__(self, call: Call, status: int, seconds: float) -> None:
        ended = self._ended
        ended.append((time.time(), call.path, status, seconds, call.request_id, call.traceparent))
        if len(ended) == 1:
            call.host.loop.call_later(_FLUSH_S, self.flush)
        elif len(ended) == _MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the lines of all calls that have ended."""
        ended, self._ended = self._ended, []
        if not ended or _serve_logger.disabled:
            return
        if _serve_logger.filters:  # somebody else's
            for each in ended:
                _serve_logger.handle(self._fill(_new_record(), *each))
            return
        for handler in _serve_logger.handlers:
            self._write(handler, ended)

    def _write(self, handler: logging.Handler, ended: list[_Ended]) -> None:
        written = file_of(handler)
        if handler.level > logging.INFO:
            return
        if written is None:
            for each in ended:
                handler.handle(self._fill(_new_record(), *each))
            return
        record, lines = _new_record(), []
        for each in ended:
            self._fill(record, *each)
            if handler.filter(record):
                lines.append(written.format(record))
        if lines:
            handler.flush()  # the records that wait for the file came before
            _write_text(written, "\n".join(lines))

    def _fill(
        self,
        record: logging.LogRecord,
        ended_at: float,
        path: bytes,
        status: int,
        seconds: float,
        request_id: str,
        traceparent: str | None,
    ) -> logging.LogRecord:
        route = path.decode("latin-1")
        fields = record.__dict__
        fields.update(self._context)  # for each line: filters remove some
        fields["created"], fields["msecs"] = ended_at, ended_at % 1 * 1000
        fields["msg"] = f"CALL {route} {STATUS_NAMES[status]} {seconds * 1e3:.1f}ms"
        fields["request_id"], fields["route"], fields["method"] = request_id, route, route
        if trace_id := trace_id_of(traceparent):
            fields["trace_id"] = trace_id
        else:
            fields.pop("trace_id", None)  # that of the line before
        return record


class _Verbatim(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg)


_VERBATIM = _Verbatim()


def _new_record() -> logging.LogRecord:
    # Without the search of Logger.info for the caller's line.
    return logging.LogRecord(_serve_logger.name, logging.INFO, __file__, 0, "", None, None)


def _write_text(handler: logging.StreamHandler[Any], text: str) -> None:
    """Write lines as one record, so that a handler that rotates its file looks at it once."""
    record = _new_record()
    record.msg = text
    with handler.lock or contextlib.nullcontext():
        formatter, handler.formatter = handler.formatter, _VERBATIM
        try:
            handler.emit(record)
        finally:
            handler.formatter = formatter

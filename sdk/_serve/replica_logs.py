"""Logs of a replica: one line for each call, and what the user's own loggers log.

Both go where Ray Serve's lines go, by its logging configuration
(https://docs.ray.io/en/latest/serve/monitoring.html#ray-logging): the replica's log file, and stderr.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sdk._serve.internals import access_log_context, file_of, logs_accesses, repair_redirected_print
from sdk._wire.call_counts import STATUS_NAMES

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.server import WireServer

_serve_logger = logging.getLogger("ray.serve")
# Seconds after which the line of a call is written, with those of the calls that have ended meanwhile.
_FLUSH_S = 0.05
# Most lines that wait to be written.
_MAX_LINES = 1000


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


class ReplicaLogs:
    """The logs of one replica. Made before the user's class, whose constructor may log.

    Loggers without a handler use Ray Serve's handlers. A program that configures ``logging`` itself keeps its own.
    """

    def __init__(self) -> None:
        repair_redirected_print()
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


class CallLog:
    """Logs the end of each call in the form of Ray Serve: ``CALL /greet.Greeter/SayHello OK 1.2ms``.

    A call only adds to a list. Its line is written with others: Ray Serve's handlers look for their file and flush it
    for each record, which costs more than the rest of a short call. A process that is killed or
    crashes loses the lines of its last 50 ms.
    """

    def __init__(self) -> None:
        # What filters would find out again for each line.
        self._context = access_log_context()
        self._ended: list[tuple[float, bytes, int, float, str]] = []

    def __call__(self, call: Call, status: int, seconds: float) -> None:
        ended = self._ended
        ended.append((time.time(), call.path, status, seconds, call.request_id))
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

    def _write(self, handler: logging.Handler, ended: list[tuple[float, bytes, int, float, str]]) -> None:
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
        self, record: logging.LogRecord, ended_at: float, path: bytes, status: int, seconds: float, request_id: str
    ) -> logging.LogRecord:
        route = path.decode("latin-1")
        fields = record.__dict__
        fields.update(self._context)  # for each line: filters remove some
        fields["created"], fields["msecs"] = ended_at, ended_at % 1 * 1000
        fields["msg"] = f"CALL {route} {STATUS_NAMES[status]} {seconds * 1e3:.1f}ms"
        fields["request_id"], fields["route"] = request_id, route
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

"""Logs of a replica: one line for each call, and what the user's own loggers log.

Both go where Ray Serve's lines go, by its logging configuration
(https://docs.ray.io/en/latest/serve/monitoring.html#ray-logging): the replica's log file, and stderr.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import grpc

from sdk._serve.internals import access_log_context, logs_accesses, repair_redirected_print

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk._wire.server import WireServer

_serve_logger = logging.getLogger("ray.serve")
_STATUS_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


class _ServeLog(logging.Handler):
    """Logs like Ray Serve's own logger, with its handlers and its level."""

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
        logging.lastResort = _ServeLog()
        self._level = logging.root.level
        self._logs_calls = False
        self._follow_level()

    def follow_configuration(self, server: WireServer) -> None:
        """Apply Ray Serve's logging configuration, which may change at run time.

        Args:
            server: The server whose calls are logged.
        """
        self._follow_level()
        logs_calls = logs_accesses()
        if logs_calls != self._logs_calls:
            self._logs_calls = logs_calls
            server.host.on_end = _CallLog() if logs_calls else None

    def _follow_level(self) -> None:
        # A level that somebody else has set stays.
        if logging.root.level == self._level and not logging.root.handlers:
            self._level = _serve_logger.getEffectiveLevel()
            logging.root.setLevel(self._level)


class _CallLog:
    """Logs the end of each call in the form of Ray Serve: ``CALL /greet.Greeter/SayHello OK 1.2ms``."""

    def __init__(self) -> None:
        # What filters would find out again for each line.
        self._context = access_log_context()

    def __call__(self, call: Call, status: int, seconds: float) -> None:
        path = call.path.decode("latin-1")
        line = f"CALL {path} {_STATUS_NAMES[status]} {seconds * 1e3:.1f}ms"
        # Without the search of Logger.info for the caller's line.
        record = logging.LogRecord(_serve_logger.name, logging.INFO, __file__, 0, line, None, None)
        record.__dict__.update(self._context, request_id=call.request_id, route=path)
        _serve_logger.handle(record)

"""Exports to a collector that may refuse them, hang, or be slow.

The exporters log each try, and the processor logs lost spans every twenty seconds. Instead there is one line when an
outage begins, and one when it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Literal

logger = logging.getLogger("sdk.tracing")

Signal = Literal["traces", "metrics"]

_WHAT: dict[Signal, str] = {"traces": "spans", "metrics": "metrics"}
_EXPORTERS, _PROCESSOR = "opentelemetry.exporter.", "opentelemetry.sdk._shared_internal"
_TOO_MANY = (
    "more of them end than the collector takes; sample fewer calls (OTEL_TRACES_SAMPLER), "
    "or keep more spans (OTEL_BSP_MAX_QUEUE_SIZE)"
)


class Outage:
    """The time in which collectors do not take one signal of this process.

    Args:
        signal: Spans, or metrics.
    """

    def __init__(self, signal: Signal) -> None:
        self._what = _WHAT[signal]
        self._lock = threading.Lock()
        self._began: float | None = None
        self._lost = 0
        # Spans were lost since the last export, because they are more than the collector takes.
        self._overflows = False

    def fail(self, reason: str, number: int) -> None:
        """Note an export that has failed.

        Args:
            reason: What the exporter says.
            number: The spans that are lost with it.
        """
        with self._lock:
            self._lost += number
            self._begin(reason)

    def overflow(self) -> None:
        """Note a span that is lost, because too many wait for their export."""
        with self._lock:
            self._lost += 1
            self._overflows = True
            self._begin(_TOO_MANY)

    def succeed(self) -> None:
        """Note an export that the collector has taken."""
        with self._lock:
            if self._began is not None and not self._overflows:
                self._log_end("OpenTelemetry exports %s again%s")
                self._began, self._lost = None, 0
            self._overflows = False

    def close(self) -> None:
        """Note the end of the process."""
        with self._lock:
            if self._began is not None:
                self._log_end("OpenTelemetry could not export %s until the end of this process%s")

    def _begin(self, reason: str) -> None:
        if self._began is None:
            self._began = time.monotonic()
            logger.warning(
                "OpenTelemetry can't export %s: %s. Calls are served; the end of this is logged", self._what, reason
            )

    def _log_end(self, text: str) -> None:
        assert self._began is not None
        lost = f"; {self._lost:,} were lost" if self._lost else ""
        logger.warning(text, self._what, f", after {time.monotonic() - self._began:.0f} s{lost}")


class _Kept(logging.Filter):
    """Keeps what exporters log in this thread during :func:`watch`'s exports, instead of logging it."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()

    def begin(self) -> None:
        self._thread.reason = ""

    def end(self) -> str:
        reason: str = self._thread.__dict__.pop("reason")
        return reason

    def filter(self, record: logging.LogRecord) -> bool:
        if "reason" not in self._thread.__dict__:
            return True
        if record.levelno >= logging.WARNING:
            self._thread.reason = record.getMessage()
        return False


_kept = _Kept()


class _Overflows(logging.Filter):
    """Counts the spans that a processor drops, instead of logging them."""

    def __init__(self, outage: Outage) -> None:
        super().__init__()
        self._outage = outage

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args != ("Span",) or not str(record.msg).startswith("Queue full"):
            return True
        self._outage.overflow()
        return False


def watch(exporter: Any, outage: Outage) -> Any:
    """Return an exporter whose failures are noted, and which one thread at a time uses.

    Args:
        exporter: An exporter of spans or of metrics.
        outage: Where to note them.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(_EXPORTERS) and _kept not in (found := logging.getLogger(name)).filters:
            found.filters.insert(0, _kept)  # before one that leaves out what was logged already
    export, one_at_a_time = exporter.export, threading.Lock()

    def watched(data: Any, *arguments: Any, **options: Any) -> Any:
        result, error = None, ""
        with one_at_a_time:
            _kept.begin()
            try:
                result = export(data, *arguments, **options)
            except Exception as raised:  # of any exporter: calls are served without it
                error = repr(raised)
            finally:
                reason = _kept.end()
        if getattr(result, "name", "") == "SUCCESS":
            outage.succeed()
        else:
            outage.fail(error or reason or "the exporter gives no reason", len(data) if isinstance(data, list) else 0)
        return result

    exporter.export = watched
    return exporter


def count_overflows(outage: Outage) -> None:
    """Note the spans that the processor of this process drops.

    Args:
        outage: Where to note them.
    """
    logging.getLogger(_PROCESSOR).filters.insert(0, _Overflows(outage))

"""Signal handlers of a command: Ctrl-C, SIGTERM and a closed terminal (SIGHUP) shut it down in the same way."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalHandlers:
    """A context in which SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread.

    A signal that was ignored before stays ignored, as ``nohup`` requires. After SIGHUP, output to the terminal is
    discarded.

    Example:
        >>> with SignalHandlers() as signals:
        ...     signals.ignore()  # from here on, no signal interrupts
    """

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        self._is_ignoring = False
        self._terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if _is_terminal(stream)]

    def __enter__(self) -> SignalHandlers:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def install(self) -> None:
        """Install the handlers. Call it again after a library, such as Ray, has replaced them."""
        for number, previous in self._previous.items():
            if previous is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Ignore the signals from now on: the rest is short and must complete."""
        self._is_ignoring = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            null = os.open(os.devnull, os.O_WRONLY)
            for terminal in self._terminals:
                os.dup2(null, terminal)
            os.close(null)
        if not self._is_ignoring:
            raise KeyboardInterrupt


def _is_terminal(stream: Any) -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not a file
        return bool(stream.isatty()) and stream.fileno() >= 0
    return False

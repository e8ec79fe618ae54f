"""Signal handlers of a command: Ctrl-C, SIGTERM and a closed terminal (SIGHUP) shut it down in the same way."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds after which a signal that had no effect is sent again.
_AGAIN_S = 0.05


class SignalHandlers:
    """A context in which SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread.

    A signal that was ignored before stays ignored, as ``nohup`` requires. After SIGHUP, output to the terminal is
    discarded.

    Python drops an exception that a destructor raises, or a callback of a fork: the signal is then sent again. Ray
    forks for each process that it starts.

    Example:
        >>> with SignalHandlers() as signals:
        ...     signals.ignore()  # from here on, no signal interrupts
    """

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        self._is_ignoring = False
        self._received = signal.SIGINT
        self._terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if _is_terminal(stream)]

    def __enter__(self) -> SignalHandlers:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self._report_dropped, sys.unraisablehook = sys.unraisablehook, self._send_again
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._report_dropped
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
            self._received = signal.Signals(number)
            if frame is not None and frame.f_globals is vars(logging):
                self._send_later()  # its callback of a fork would not release its lock, and block other threads
            else:
                raise KeyboardInterrupt

    def _send_later(self) -> None:
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), self._received)).start()

    def _send_again(self, dropped: Any) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            self._send_later()
        else:
            self._report_dropped(dropped)


def _is_terminal(stream: Any) -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not a file
        return bool(stream.isatty()) and stream.fileno() >= 0
    return False

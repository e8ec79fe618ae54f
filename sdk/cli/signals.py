"""Ctrl-C, SIGTERM and a closed terminal end a command in the same orderly way."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While it is entered, these signals raise KeyboardInterrupt in the main thread.

    A signal that was ignored before stays ignored: ``nohup`` wants it so. When the terminal is gone, what would be
    written to it is dropped.

    Example:
        >>> with Interrupts() as interrupts:
        ...     interrupts.shield()  # from here on nothing interrupts
    """

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        self._is_shielded = False
        self._terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if _is_terminal(stream)]

    def __enter__(self) -> Interrupts:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def install(self) -> None:
        """Handle the signals; again after somebody else, such as Ray, has put a handler of its own in the place."""
        for number, previous in self._previous.items():
            if previous is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def shield(self) -> None:
        """Ignore the signals from now on: what follows is short and must be done."""
        self._is_shielded = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in self._terminals:
                os.dup2(nowhere, terminal)
            os.close(nowhere)
        if not self._is_shielded:
            raise KeyboardInterrupt


def _is_terminal(stream: Any) -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not a file at all
        return bool(stream.isatty()) and stream.fileno() >= 0
    return False

"""Display of a wait and its time: a line with a spinner in a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

# Seconds until the first line where there is no terminal, and between two.
_EVERY_S = 10.0


class Waiting:
    """A context that shows what the command waits for, on stderr.

    Args:
        what: What it waits for first.
        console: The console on stderr; by default a new one.
    """

    def __init__(self, what: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._what, self._began = what, time.monotonic()
        self._over = threading.Event()
        self._status = self._console.status(self)
        self._thread = threading.Thread(target=self._print, name="waiting", daemon=True)

    def __enter__(self) -> Waiting:
        self._status.start()
        if not self._console.is_terminal:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __rich__(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"{self._what} [dim]{seconds} s[/]" if seconds else self._what

    def update(self, what: str) -> None:
        """Wait for something else from now on."""
        self._what, self._began = what, time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Show nothing meanwhile: the terminal is used otherwise."""
        self._status.stop()
        yield
        self._status.start()

    def stop(self) -> None:
        """Show nothing more. Does no harm if it has stopped."""
        self._over.set()
        self._status.stop()

    def _print(self) -> None:
        while not self._over.wait(_EVERY_S):
            waited = time.monotonic() - self._began
            if waited >= _EVERY_S / 2:
                self._console.print(f"{self._what} {waited:.0f} s", markup=False, highlight=False, soft_wrap=True)

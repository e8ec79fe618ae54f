"""Shows in a terminal how far a long run is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from codegen.sync import Steps

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


# A run on fewer protos is over before anybody reads what it does, and `rich` takes its time to import.
_MANY = 50


@contextmanager
def steps() -> Iterator[Steps]:
    """Show the steps on stderr while the context lasts, when that is a terminal and there are many protos."""
    if not sys.stderr.isatty():
        yield Steps()
        return
    shown = _Shown()
    try:
        yield shown
    finally:
        shown.end()


class _Shown(Steps):
    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._current: TaskID | None = None

    def expect(self, protos: int) -> None:
        if protos < _MANY:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}")
        columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.start()

    def begin(self, text: str, total: int | None = None) -> None:
        if self._progress is not None:
            if self._current is not None:
                self._progress.remove_task(self._current)
            self._current = self._progress.add_task(text, total=total)

    def advance(self) -> None:
        if self._progress is not None and self._current is not None:
            self._progress.advance(self._current)

    def end(self) -> None:
        """Take everything off the terminal again."""
        if self._progress is not None:
            self._progress.stop()

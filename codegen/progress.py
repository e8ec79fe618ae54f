"""Progress of a long run in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from codegen.sync import ProgressReporter

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


# A run on fewer protos is too short for a progress bar, and `rich` is slow to import.
_MANY = 50


@contextmanager
def reporter() -> Iterator[ProgressReporter]:
    """Show progress on stderr while the context lasts, if that is a terminal and there are many protos."""
    if not sys.stderr.isatty():
        yield ProgressReporter()
        return
    bar = _ProgressBar()
    try:
        yield bar
    finally:
        bar.stop()


class _ProgressBar(ProgressReporter):
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
        # The stderr of now: while mypy-protobuf runs in this process, it has another.
        self._progress = Progress(*columns, console=Console(file=sys.stderr), transient=True)
        self._progress.start()

    def begin(self, text: str, total: int | None = None) -> None:
        if self._progress is not None:
            if self._current is not None:
                self._progress.remove_task(self._current)
            self._current = self._progress.add_task(text, total=total)

    def advance(self) -> None:
        if self._progress is not None and self._current is not None:
            self._progress.advance(self._current)

    def stop(self) -> None:
        """Remove the bar from the terminal."""
        if self._progress is not None:
            self._progress.stop()

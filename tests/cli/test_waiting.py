"""The display of a wait."""

from __future__ import annotations

import io
import queue
import re

import pytest
from rich.console import Console

from sdk.cli import waiting
from sdk.cli.waiting import Waiting


class Lines(io.StringIO):
    """A file whose lines can be awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.written: queue.Queue[str] = queue.Queue()

    def write(self, text: str) -> int:
        if text.strip():
            self.written.put(text)
        return super().write(text)


def test_a_long_wait_is_told_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_EVERY_S", 0.01)
    lines = Lines()
    with Waiting("Starting a local Ray …", Console(file=lines)) as shown:
        assert re.fullmatch(r"Starting a local Ray … \d+ s\n", lines.written.get(timeout=30))
        shown.update("Starting 'shop' …")
        while not (line := lines.written.get(timeout=30)).startswith("Starting 'shop'"):
            assert line.startswith("Starting a local Ray")


def test_a_short_wait_is_silent_where_there_is_no_terminal() -> None:
    lines = Lines()
    with Waiting("Asking Ray …", Console(file=lines)):
        pass
    assert lines.getvalue() == ""


def test_a_terminal_shows_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    shown = Waiting("Asking Ray …", Console(file=io.StringIO()))
    assert shown.__rich__() == "Asking Ray …"
    now[0] += 12
    assert shown.__rich__() == "Asking Ray … [dim]12 s[/]"
    shown.update("Shutting down …")
    assert shown.__rich__() == "Shutting down …"

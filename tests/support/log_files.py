"""Log files that another process is writing."""

from __future__ import annotations

from pathlib import Path


def complete_lines(path: Path) -> list[str]:
    """Return the lines that have their end: the last one may be half written."""
    return path.read_text().split("\n")[:-1]

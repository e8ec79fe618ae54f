"""Log files that another process is writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def complete_lines(path: Path) -> list[str]:
    """Return the lines that have their end: the last one may be half written."""
    return [line.decode() for line in path.read_bytes().split(b"\n")[:-1]]


def entries(path: Path, part: str) -> list[dict[str, Any]]:
    """Return the complete lines that contain a text, read as JSON: to read all lines costs far more in a long log."""
    return [json.loads(line) for line in complete_lines(path) if part in line]

"""The installed ``sdk`` command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SDK = Path(sys.executable).parent / "sdk"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a command that failed has printed."""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    return line

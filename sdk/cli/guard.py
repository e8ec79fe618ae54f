"""A process that ends what is left of the local Ray that a command started, when the command itself can't.

Ray's processes end with the process that started them, but for its agents: when everything else was killed, they look
for it for a minute. No other Ray is touched: the processes are known by their ids and start times.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

# Reads until the command says that it is done, or is gone; then gives Ray some seconds, and kills what is left.
_PROGRAM = """
import os, signal, sys, time

def is_there(pid, start):
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == start and fields[0] != "Z"

patience_s = 2.0 if sys.stdin.buffer.read() else 5.0
left = [entry.split(":") for entry in sys.argv[1:]]
deadline = time.monotonic() + patience_s
while left and time.monotonic() < deadline:
    left = [entry for entry in left if is_there(*entry)]
    time.sleep(0.05)
for pid, start in left:
    if is_there(pid, start):
        os.kill(int(pid), signal.SIGKILL)
"""
_PATIENCE_S = 10.0


class Guard:
    """Watches this process and those that it started.

    Example:
        >>> guard = Guard()
        >>> child = subprocess.Popen(["sleep", "60"])
        >>> guard.watch()
        >>> guard.finish()
        >>> child.wait()
        -9
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        """Begin, with the processes that descend from this one now."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *_descendants(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what is sent to the command's process group does not reach it
        )

    def finish(self) -> None:
        """End what is left of those processes now, and the guard."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(b"done", timeout=_PATIENCE_S)


def _descendants(root: int) -> list[str]:
    """Return ``"PID:START"`` of each process that descends from one, with its start in the kernel's ticks."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append((int(entry.name), fields[19]))
    found, pending = [], [root]
    while pending:
        for pid, start in children.get(pending.pop(), ()):
            found.append(f"{pid}:{start}")
            pending.append(pid)
    return found

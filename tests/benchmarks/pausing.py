"""Stop servers while they are not measured: three idle Ray clusters take a tenth of a small machine.

Run as a program it is the guard of a benchmark: when the benchmark ends, for any reason, it resumes all of them, so
that they notice the end too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def tree_of(root: int) -> list[int]:
    """Return the id of a process and the ids of those below it, those first that started the others."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree


def pause(root: int) -> None:
    """Stop a process and everything below it."""
    stopped: set[int] = set()
    # Again, until no process is left that started after the last look.
    while new := [pid for pid in tree_of(root) if pid not in stopped]:
        _signal(new, signal.SIGSTOP)
        stopped.update(new)


def resume(root: int) -> None:
    """Resume a process and everything below it."""
    _signal(reversed(tree_of(root)), signal.SIGCONT)


@contextlib.contextmanager
def guard() -> Iterator[subprocess.Popen[str]]:
    """Run the guard; send it the process ids of servers, one per line, on its standard input."""
    # In a separate session: it must outlive a Ctrl-C.
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def _signal(pids: Iterator[int] | list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


if __name__ == "__main__":
    for each in [int(line) for line in sys.stdin]:
        resume(each)

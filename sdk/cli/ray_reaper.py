"""A process that ends what is left of the local Ray that a command started, when the command itself can't.

Ray's processes end with the process that started them, but for its agents: when everything else was killed, they look
for it for a minute. No other Ray is touched: the processes are known by their ids and start times.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

# Looks for what descends from the command, time and again until the command says that all of it is there. Then it waits
# until the command says that it is done, or is gone; gives Ray some seconds, and kills what is left.
_PROGRAM = """
import os, select, signal, time

command, known = os.getppid(), {}

def processes():
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                yield int(name), int(fields[1]), fields[19]

def look():
    there = list(processes())
    starts = {pid: start for pid, _, start in there}
    found = {pid for pid, start in known.items() if starts.get(pid) == start}
    known.clear()
    if os.getppid() == command:
        found.add(command)
    pending = list(found)
    while pending:
        parent = pending.pop()
        for pid, its_parent, _ in there:
            if its_parent == parent and pid not in found:
                found.add(pid)
                pending.append(pid)
    known.update((pid, starts[pid]) for pid in found if pid != command)

said = b""
look()
os.write(1, b"b")
while not said:
    look()
    if select.select([0], [], [], 0.2)[0]:
        said = os.read(0, 1)
        if not said:
            break
if said == b"w":
    look()
    os.write(1, b"w")
    said = os.read(0, 1)
deadline = time.monotonic() + (2.0 if said == b"d" else 5.0)
look()
while known and time.monotonic() < deadline:
    time.sleep(0.05)
    look()
for pid in known:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
_PATIENCE_S = 10.0


class Guard:
    """Watches this process and those that it starts.

    Example:
        >>> guard = Guard()
        >>> guard.begin()
        >>> child = subprocess.Popen(["sleep", "60"])
        >>> guard.watch()
        >>> guard.finish()
        >>> child.wait()
        -9
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Begin to look for processes that descend from this one; what is there already is found at once."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what is sent to the command's process group does not reach it
        )
        self._wait(self._process)

    def watch(self) -> None:
        """Look for the last time: what this process starts from now on is its own affair."""
        if self._process is None:
            self.begin()
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            self._process.stdin.write(b"w")
            self._process.stdin.flush()
        self._wait(self._process)

    @staticmethod
    def _wait(process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        process.stdout.read(1)

    def finish(self) -> None:
        """End what is left of those processes now, and the guard."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(b"d", timeout=_PATIENCE_S)

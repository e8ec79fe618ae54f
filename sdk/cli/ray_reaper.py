"""A helper process that ends the rest of a local Ray that a command started, even if the command is killed.

Ray's processes end with the process that started them, except its agents: if everything else was killed, they try to
reach it for a minute. No other Ray is affected: processes are identified by their ids and start times.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

# Tracks the descendants of the command until the command reports (`w`) that all of Ray has started. Then it waits until
# the command reports (`d`) that it is done, or has exited; it gives Ray some seconds to end, kills the rest, and waits
# until that has ended.
_PROGRAM = """
import os, select, signal, time

command, known = os.getppid(), {}

def processes():
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/stat", "rb", 0) as file:  # two thirds of the CPU time of text
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] != b"Z":
                yield int(name), int(fields[1]), fields[19]

def track():
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

def wait_until_gone(seconds):
    deadline = time.monotonic() + seconds
    track()
    while known and time.monotonic() < deadline:
        time.sleep(0.05)
        track()

message = b""
track()
os.write(1, b"b")
while not message:
    track()
    if select.select([0], [], [], 0.2)[0]:
        message = os.read(0, 1)
        if not message:
            break
if message == b"w":
    track()
    os.write(1, b"w")
    message = os.read(0, 1)
wait_until_gone(2.0 if message == b"d" else 5.0)
for pid in known:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
wait_until_gone(5.0)
"""
_REAP_TIMEOUT_S = 10.0


class RayReaper:
    """Tracks the processes that this process starts, and ends them.

    Example:
        >>> reaper = RayReaper()
        >>> reaper.start()
        >>> child = subprocess.Popen(["sleep", "60"])
        >>> reaper.stop_tracking()
        >>> reaper.reap()
        >>> child.wait()
        -9
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start to track the descendants of this process, including those that exist already."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # signals to the command's process group do not reach it
        )
        self._wait(self._process)

    def stop_tracking(self) -> None:
        """Track for the last time: processes that this one starts from now on are not reaped."""
        if self._process is None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed
            self._process.stdin.write(b"w")
            self._process.stdin.flush()
        self._wait(self._process)

    @staticmethod
    def _wait(process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        process.stdout.read(1)

    def reap(self) -> None:
        """End the tracked processes that are left, and the helper process."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(b"d", timeout=_REAP_TIMEOUT_S)

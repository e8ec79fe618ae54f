"""Processes of a killed command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from sdk.cli.ray_reaper import RayReaper

COMMAND = """
import subprocess, sys, time
from sdk.cli.ray_reaper import RayReaper
child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
reaper = RayReaper()
reaper.start() if sys.argv[1] == "started" else reaper.stop_tracking() if sys.argv[1] == "tracked" else None
print(child.pid, flush=True)
time.sleep(60)
"""


def start(how: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-c", COMMAND, how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["started", "tracked"])
def test_processes_of_a_killed_command_are_ended_and_no_others(how: str) -> None:
    killed, child = start(how)
    other, others_child = start("not tracked")
    try:
        for process in (killed, other):
            process.kill()
            process.communicate()
        deadline = time.monotonic() + 20
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_running(child)
        assert is_running(others_child)
    finally:
        os.kill(others_child, signal.SIGKILL)


# In a separate process: the reaper would also end other processes of this one, such as the session's Ray.
FINISH = """
import subprocess
from sdk.cli.ray_reaper import RayReaper
reaper = RayReaper()
child = subprocess.Popen(["sleep", "60"])
reaper.stop_tracking()
reaper.reap()
print(child.wait(5))
"""


def test_reap_ends_tracked_processes_at_once() -> None:
    finished = subprocess.run([sys.executable, "-c", FINISH], capture_output=True, text=True, timeout=30, check=True)
    assert int(finished.stdout) == -signal.SIGKILL


def test_reap_before_the_start() -> None:
    RayReaper().reap()

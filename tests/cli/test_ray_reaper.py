"""The guard ends what a command has started when the command is gone, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from sdk.cli.ray_reaper import Guard

COMMAND = """
import subprocess, sys, time
from sdk.cli.guard import Guard
child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
guard = Guard()
guard.begin() if sys.argv[1] == "begun" else guard.watch() if sys.argv[1] == "guarded" else None
print(child.pid, flush=True)
time.sleep(60)
"""


def start(how: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-c", COMMAND, how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def is_there(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["begun", "guarded"])
def test_what_a_killed_command_leaves_is_ended_and_what_others_started_stays(how: str) -> None:
    guarded, child = start(how)
    other, others_child = start("not guarded")
    try:
        for process in (guarded, other):
            process.kill()
            process.communicate()
        deadline = time.monotonic() + 20
        while is_there(child) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_there(child)
        assert is_there(others_child)
    finally:
        os.kill(others_child, signal.SIGKILL)


# In a process of its own: everything else that this one has started, such as the session's Ray, would end too.
FINISH = """
import subprocess
from sdk.cli.guard import Guard
guard = Guard()
child = subprocess.Popen(["sleep", "60"])
guard.watch()
guard.finish()
print(child.wait(5))
"""


def test_finish_ends_what_is_left_at_once() -> None:
    finished = subprocess.run([sys.executable, "-c", FINISH], capture_output=True, text=True, timeout=30, check=True)
    assert int(finished.stdout) == -signal.SIGKILL


def test_finish_before_anything_was_started() -> None:
    Guard().finish()

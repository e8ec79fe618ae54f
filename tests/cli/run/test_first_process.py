"""The first process of a container: it forwards signals, collects orphans, and ends with the command's exit code."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.namespaces import PID_NAMESPACE, may_make_pid_namespace

pytestmark = pytest.mark.skipif(not may_make_pid_namespace(), reason="needs the right to make a PID namespace")

_HEAD = """
import contextlib, os, signal, subprocess, sys, time
from pathlib import Path
from sdk.cli.run.first_process import continue_in_child
continue_in_child()
"""
_ORPHANS = """
assert os.getppid() == 1
for _ in range(5):
    subprocess.run(["sh", "-c", "true &"], check=True)
def zombies():
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it was collected just now
            stat = path.read_text()
            found += [stat] if stat.rpartition(")")[2].split()[0] == "Z" else []
    return found
deadline = time.monotonic() + 60
while zombies() and time.monotonic() < deadline:
    time.sleep(0.01)
print(zombies())
"""
_SIGNALLED = """
def end(number, _):
    print(signal.Signals(number).name, flush=True)
    os._exit(7)
signal.signal(signal.SIGTERM, end)
os.kill(1, signal.SIGTERM)
signal.pause()
"""
_SIGNAL_AT_THE_END = """
import os, signal
wait = os.wait
def wait_and_receive():
    ended = wait()
    os.kill(os.getpid(), signal.SIGTERM)
    return ended
os.wait = wait_and_receive
"""


@pytest.mark.parametrize(
    ("program", "output", "code"),
    [
        pytest.param(_ORPHANS, "[]\n", 0, id="orphans"),
        pytest.param(_SIGNALLED, "SIGTERM\n", 7, id="a signal"),
        pytest.param("sys.exit(3)", "", 3, id="an exit code"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", "", 128 + signal.SIGKILL, id="killed"),
    ],
)
def test_the_command_runs_in_a_child(program: str, output: str, code: int) -> None:
    command = [*PID_NAMESPACE, sys.executable, "-c", _HEAD + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.returncode) == (output, code), done.stderr


def test_a_signal_that_comes_after_the_end_of_the_command_is_dropped() -> None:
    command = [*PID_NAMESPACE, sys.executable, "-c", f"{_SIGNAL_AT_THE_END}{_HEAD}sys.exit(3)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (3, "")


def test_any_other_process_goes_on_by_itself() -> None:
    command = [sys.executable, "-c", f"import os; parent = os.getppid()\n{_HEAD}\nprint(os.getppid() == parent)"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=100).stdout == "True\n"

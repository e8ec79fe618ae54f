"""Freed memory is kept for the next message, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Takes and frees what four calls with a message of 1 MB do, and says how many pages the kernel had to give for it.
PROGRAM = """
import resource, sys
from sdk._wire.malloc import keep_freed_memory
keeps = len(sys.argv) > 1 and keep_freed_memory()
for turn in range(100):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    messages = [bytes(1 << 20) for _ in range(4)]
    del messages
print(keeps, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(*arguments: str, **settings: str) -> tuple[bool, int]:
    """Return whether memory is kept, and the faults of 90 turns."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    keeps, faults = done.stdout.split()
    return keeps == "True", int(faults)


def test_the_pages_of_messages_are_used_again() -> None:
    keeps, faults = run("keep")
    assert keeps
    assert faults < 90, "not one page for each turn, of the thousand that its messages have"


def test_without_it_they_are_given_back_each_time() -> None:
    _, faults = run()
    assert faults > 90 * 50, "the C library keeps them by itself now: this module is no longer needed"


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_the_environment_decides(name: str) -> None:
    assert run("keep", **{name: "131072"})[0] is False


def test_the_environment_decides_by_tunables() -> None:
    assert run("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")[0] is False

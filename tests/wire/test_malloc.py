"""Freed memory is kept for the next message, unless the environment configures malloc."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Allocates and frees like four calls with a message of 1 MB, and prints the number of pages that the kernel supplied.
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
    """Run the program; return True if memory is kept, and the page faults of 90 turns."""
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


def test_the_pages_of_messages_are_reused() -> None:
    keeps, faults = run("keep")
    assert keeps
    assert faults < 90, "not one page for each turn, of the thousand that its messages have"


def test_without_it_they_are_returned_each_time() -> None:
    _, faults = run()
    assert faults > 90 * 50, "the C library keeps them now: this module is no longer needed"


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_the_environment_decides(name: str) -> None:
    assert run("keep", **{name: "131072"})[0] is False


def test_the_environment_decides_by_tunables() -> None:
    assert run("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")[0] is False

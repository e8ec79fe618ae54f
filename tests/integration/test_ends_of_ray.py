"""After a driver is killed, and after `ray stop --force`: no process remains; each `sdk run` there says one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.namespaces import PID_NAMESPACE, may_make_pid_namespace
from tests.support.small_ray import program_environment

# Two starts of Ray, and four programs.
PROGRAM = Path(__file__).parent / "ends_of_ray.py"
# A PID namespace without other processes: `ray stop` would stop the other Rays of this machine. The shell is the
# first process there, and reaps orphans: Ray takes a zombie for a live process.
ALONE = (*PID_NAMESPACE, "sh", "-c", '"$@"; exit $?', "sh")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # A short path: Ray keeps unix sockets in it, whose paths have at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="t"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, Any]:
    is_alone = may_make_pid_namespace()
    command = [*(ALONE if is_alone else ()), sys.executable, str(PROGRAM), "alone" if is_alone else "among others"]
    # Ray writes the address of the newest cluster into RAY_TMPDIR: use a folder that no other program reads.
    own = {
        "TMPDIR": str(folder),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        "SDK_TEST_MARK": uuid.uuid4().hex,
    }
    environment = program_environment(**own)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def test_a_killed_driver_leaves_nothing(seen: dict[str, Any]) -> None:
    assert seen["served by a driver"] == "OK"
    assert seen["left by a killed driver"] == []


def test_on_a_cluster_an_application_outlives_its_driver(seen: dict[str, Any]) -> None:
    assert seen["served without its driver"] == "OK"


@pytest.mark.parametrize("name", ["waits", "interrupted"])
def test_sdk_run_ends_with_its_cluster(seen: dict[str, Any], name: str) -> None:
    code, lines = seen[f"sdk run that {name}"]
    # Ray's core may write lines too when a call of it fails meanwhile, each after its time in brackets.
    origin, *waits, error = (line for line in lines if not line.startswith("["))
    assert all(line.startswith("Starting ") for line in waits)  # with the seconds, on a slow machine
    address = origin.removeprefix("Ray at ").partition(",")[0]
    assert (code, error) == (1, f"error: The Ray cluster at {address} has gone.")


def test_ray_stop_force_leaves_nothing(seen: dict[str, Any], folder: Path) -> None:
    assert seen["left by ray stop --force"] == []
    assert [path for path in folder.rglob("*") if "sdk-ingress" in path.name] == []

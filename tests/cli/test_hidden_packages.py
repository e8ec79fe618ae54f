"""A folder or a module of the user on PYTHONPATH that has the name of one of our packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import ROOT
from tests.support.sdk_command import SDK, only_line

GREETER = ROOT / "examples" / "greeter"


@pytest.fixture(params=["sdk/__init__.py", "sdk.py", "codegen/__init__.py", "codegen.py"])
def hiding(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The path of a package or a module that hides ours, below ``tmp_path``."""
    path: str = request.param
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).touch()
    return path


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(GREETER)])}
    words = list(map(str, command))
    return subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("command", [[SDK, "--version"], [SDK.with_name("protoc-gen-sdk")]])
def test_a_command_says_what_hides_our_package(tmp_path: Path, hiding: str, command: list[object]) -> None:
    done = run(tmp_path, *command)
    assert (done.returncode, done.stdout) == (2, "")
    shown, name = tmp_path / hiding.removesuffix("__init__.py"), hiding.partition("/")[0].removesuffix(".py")
    slash = "/" if hiding.endswith("__init__.py") else ""
    assert only_line(done) == (
        f"error: {shown}{slash} hides the package {name!r} of ray-grpc-sdk: rename it, or remove {tmp_path} from "
        "PYTHONPATH"
    )


def test_generated_code_says_what_hides_our_package(tmp_path: Path, hiding: str) -> None:
    done = run(tmp_path, sys.executable, "-c", "import greeter_sdk")
    if hiding.startswith("codegen"):  # which it does not need
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: <module 'sdk' from '{tmp_path / hiding}'> is not ray-grpc-sdk: "
        "rename it, or install ray-grpc-sdk"
    )


def test_a_folder_without_init_hides_nothing(tmp_path: Path) -> None:
    for name in ("sdk", "codegen"):
        (tmp_path / name).mkdir()
    assert run(tmp_path, SDK, "--version").returncode == 0
    assert run(tmp_path, sys.executable, "-c", "import greeter_sdk").returncode == 0

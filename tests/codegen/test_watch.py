"""``sdk codegen --watch``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import PROTO, message, put
from tests.support.sdk_command import SDK

WATCHING = "watching protos; press Ctrl-C to stop\n"


@pytest.fixture
def watching(project: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [SDK, "codegen", "protos", "--out", "gen", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def put_at_once(path: str, text: str) -> None:
    """Replace a file as editors do: an empty one, which is about to be written, would count as a change too."""
    new = f"{path}.new"
    put({new: text})
    os.replace(new, path)


def said(process: subprocess.Popen[str]) -> str:
    """Return the output until the process waits for a change."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        if line.startswith("watching "):
            return text
        text += line
    raise AssertionError(f"it ended: {text}")


def test_it_generates_again_when_a_proto_changes(watching: subprocess.Popen[str]) -> None:
    assert said(watching) == "gen: 5 files from 1 proto: 5 written, 0 up to date\n"
    put_at_once("protos/acme/a.proto", message("a"))
    assert said(watching) == "gen: 9 files from 2 protos: 4 written, 5 up to date\n"
    put_at_once("protos/acme/a.proto", "wrong")
    assert said(watching).endswith(
        'protos/acme/a.proto:1:1: Expected top-level statement (e.g. "message").\nerror: 1 error in the protos\n'
    )
    assert Path("gen/acme/a_pb2.py").exists()
    put_at_once("protos/acme/a.proto", message("a").replace("}", "int32 b = 1; }"))
    assert said(watching) == "gen: 9 files from 2 protos: 2 written, 7 up to date\n"
    Path("protos/acme/a.proto").unlink()
    assert said(watching) == "gen: 5 files from 1 proto: 0 written, 5 up to date, 4 removed\n"
    # Some editors write a new file and rename it.
    put({"protos/.new": PROTO.replace("service", "// New.\nservice")})
    Path("protos/.new").rename("protos/greet.proto")
    assert said(watching) == "gen: 5 files from 1 proto: 3 written, 2 up to date\n"


def test_folders_and_options_may_come_and_go(watching: subprocess.Popen[str]) -> None:
    said(watching)
    shutil.rmtree("protos")
    assert said(watching) == "error: protos does not exist\n"
    put({"elsewhere/greet.proto": PROTO})
    os.rename("elsewhere", "protos")
    assert said(watching) == "gen: 5 files from 1 proto: 0 written, 5 up to date\n"
    put_at_once("pyproject.toml", "[tool.sdk.codegen]\npackages = 'gen'\n")
    assert said(watching).startswith("error: pyproject.toml: unknown key 'packages' in [tool.sdk.codegen]; known are ")
    put_at_once("pyproject.toml", "[tool.sdk.codegen]\npackage = 'gen'\n")
    assert said(watching).startswith("gen: 6 files from 1 proto: ")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_silently(watching: subprocess.Popen[str], ending: signal.Signals) -> None:
    said(watching)
    os.killpg(watching.pid, ending)
    assert watching.stdout is not None
    assert (watching.stdout.read(), watching.wait(60)) == ("", 0)

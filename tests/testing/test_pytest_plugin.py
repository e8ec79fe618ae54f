"""The fixture of the pytest plugin, each test in a separate run of pytest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import harness_pb2
import pytest

from tests.support.cluster import ROOT
from tests.support.small_ray import PYTHON_START

pytestmark = pytest.mark.timeout(60)

TESTS = """
import asyncio, threading
from tests.testing.harness_apps import Greeter
from harness_pb2 import Text
from harness_sdk import GreeterClient, GreeterSyncClient
from sdk.testing import Server

servers = []

def test_passes(grpc_serve):
    server = grpc_serve(Greeter.bind("hi"))
    servers.append(server)
    assert isinstance(server, Server)
    assert server.client(GreeterSyncClient).SayHello(Text(text="you")).text == "hi you"
    other = grpc_serve(Greeter.bind("one"), two=Greeter.bind("two"))
    assert other.client(GreeterSyncClient, application="two").SayHello(Text()).text == "two "

def test_async_clients(grpc_serve):
    async def main():
        return await grpc_serve(Greeter.bind("hi")).client(GreeterClient).SayHello(Text(text="you"))
    assert asyncio.run(main()).text == "hi you"

def test_fails(grpc_serve):
    servers.append(grpc_serve(Greeter.bind("hi")))
    assert False

def test_nothing_is_left():
    assert not [thread for thread in threading.enumerate() if thread.name == "sdk-testing"]
    assert len(servers) == 2
"""


def run(folder: Path, *arguments: str) -> str:
    paths = [str(PYTHON_START), str(ROOT), str(Path(str(harness_pb2.__file__)).parent)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
        # The installed plugins take longer to import than pytest, and pytest-asyncio warns that it is not configured.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-p", "sdk.pytest_plugin", "-W", "error", *arguments]
    # Ray's own warnings; pyproject.toml ignores them in this suite.
    command += ["-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning", "-W", "ignore::ResourceWarning"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_the_fixture_serves_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    output = run(tmp_path)
    assert re.search(r"1 failed, 3 passed in", output), output


def test_the_plugin_imports_nothing_before_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(): assert not {'ray', 'grpc', 'google.protobuf', 'sdk.testing'} & sys.modules.keys()\n"
    )
    assert "1 passed" in run(tmp_path)
    assert "serves applications for one test" in run(tmp_path, "--fixtures").lower().replace("serve app", "serves app")

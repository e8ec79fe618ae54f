"""Fixtures: a user's project in a separate folder, and the installed ``sdk`` command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.command_server import command_server
from tests.support.sdk_command import SDK, Run
from tests.support.small_ray import PYTHON_START

PROTO = """\
syntax = "proto3";
package shop;
message Order { string item = 1; }
message Receipt { string text = 1; }
service Shop {
  // Buys one item.
  rpc Buy(Order) returns (Receipt);
}
"""
APP = """\
from sdk import grpc_deployment
from shop_pb2 import Order, Receipt
from shop_sdk import ShopBase


@grpc_deployment
class Counter(ShopBase):
    async def Buy(self, request: Order) -> Receipt:
        return Receipt(text=f"one {request.item}")


app = Counter.bind()
"""


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    (folder / "shop.proto").write_text(PROTO)
    subprocess.run([SDK, "codegen", "shop.proto", "--out", "."], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def project(tmp_path: Path, generated: Path) -> Path:
    for file in generated.iterdir():
        if file.is_file():  # not the cache of `sdk codegen`
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "shop_app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def sdk(project: Path) -> Run:
    """Run ``sdk`` with arguments in the project's folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(PYTHON_START), **environment}
        # What imports Ray is run where Ray is imported already.
        if arguments[0] in ("check", "run", "status", "shutdown") and "--help" not in arguments:
            return command_server().run(arguments, project, env)
        return subprocess.run(
            [SDK, *arguments],
            cwd=project,
            env=env,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run

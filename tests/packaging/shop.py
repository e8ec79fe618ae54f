"""A project that is not in this repository, and its commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]

PROTO = """
syntax = "proto3";
package shop;
message Order { string item = 1; int32 count = 2; }
message Receipt { string text = 1; }
service Till {
  // Sells something.
  rpc Sell(Order) returns (Receipt);
}
"""

APP = """
from shop_pb2 import Order, Receipt
from shop_sdk import TillBase

from sdk import grpc_deployment


@grpc_deployment
class Till(TillBase):
    def __init__(self, currency: str) -> None:
        self.currency = currency

    async def Sell(self, request: Order) -> Receipt:
        return Receipt(text=f"{request.count} {request.item}: {request.count * 2} {self.currency}")


app = Till.bind("EUR")
"""


def run(command: list[str], folder: Path) -> str:
    """Run a command as in a user's shell; return its output."""
    environment = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR", "LANG") if name in os.environ}
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def install(wheel: Path, venv: Path) -> None:
    """Install a wheel without its dependencies, with uv: it takes a tenth of pip's CPU time."""
    uv = [f"{sys.prefix}/bin/uv", "pip", "install", "--quiet", f"--python={venv}/bin/python"]
    run([*uv, "--offline", "--no-index", "--no-cache", "--no-deps", "--reinstall", str(wheel)], venv)

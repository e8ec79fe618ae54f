"""The same class behind Ray Serve's own gRPC proxy, on a separate cluster: a cluster has one set of proxies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.cluster import free_port

PROGRAM = Path(__file__).parent / "serves_own_proxy.py"


def test_a_class_serves_behind_ray_serves_own_proxy() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(PROGRAM), str(free_port()), str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert answers == [
        ["Unary", "OK", "mine", [2]],
        ["Down", "OK", "mine", [0, 1, 2]],
        ["Up", "OK", "mine", [2]],
        ["Both", "OK", "mine", [0, 1, 2]],
        ["INVALID_ARGUMENT", "0", "not found, adding"],
    ]

"""``sdk run`` with a config file: on a local Ray, ended by kill -9, and every error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.support.ports import free_port
from tests.support.processes import left_with, processes_with
from tests.support.sdk_command import SDK, Run, only_line
from tests.support.small_ray import PYTHON_START

CONFIG = """\
grpc_options: {{port: {port}}}
applications:
  - name: built
    import_path: shop_app:build
    args: {{word: two}}
    route_prefix: null
    deployments:
      - {{name: Counter, max_ongoing_requests: 3}}
"""
BUILDER = """

def build(args):
    return Counter.options(user_config=args).bind()
"""
SAYS = """\
        print("printed", request.item)
        logging.getLogger("shop").info("logged %s", request.item)
        if request.item == "worm":
            raise ValueError("not an apple")
"""


@pytest.fixture
def temp() -> Iterator[Path]:
    # Short: Ray keeps unix sockets below it, whose paths have at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def config(project: Path) -> Path:
    module = project / "shop_app.py"
    constructor = "class Counter(ShopBase):\n    def reconfigure(self, config):\n        self.word = config['word']\n"
    code = module.read_text().replace("class Counter(ShopBase):\n", constructor).replace('f"one ', 'f"{self.word} ')
    code = code.replace("        return Receipt", f"{SAYS}        return Receipt")
    module.write_text("import logging\n" + code + BUILDER)
    (project / "deploy").mkdir()  # not where the modules are: those are found in the working directory
    path = project / "deploy" / "serve.yaml"
    path.write_text(CONFIG.format(port=free_port()))
    return path


def start(project: Path, config: Path, mark: str, temp: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SDK, "run", str(config.relative_to(project)), "--address", "local"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(PYTHON_START), "SDK_TEST_MARK": mark, "TMPDIR": str(temp)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_config_is_served_and_kill_9_leaves_no_process(project: Path, config: Path, temp: Path) -> None:
    mark = uuid.uuid4().hex
    process = start(project, config, mark, temp)
    assert process.stdout is not None
    try:
        shown = []
        for line in process.stdout:
            shown.append(line.strip())
            if "Ctrl-C" in line:
                break
        assert shown[:2] == [
            "application built: RUNNING",
            "deployment Counter: HEALTHY, 1 replica, serves shop.Shop",
        ]
        address = shown[-1].split()[3]
        assert shown[3].startswith("Ray: ")
        (log,) = Path(shown[4].removeprefix("Logs: ")).glob("replica_built_Counter_*.log")
        assert shown[5] == f"""Try: sdk call {address} shop.Shop/Buy -d '{{"item": "text"}}'"""
        assert shown[-1] == f"Serving 'built' at {address} on a local Ray. Press Ctrl-C to stop."
        with grpc.insecure_channel(address) as channel:
            buy = channel.unary_unary("/shop.Shop/Buy")
            assert b"two apple" in buy(b"\x0a\x05apple", timeout=20, metadata=(("request_id", "r-1"),))
            with pytest.raises(grpc.RpcError, match="not an apple"):
                buy(b"\x0a\x04worm", timeout=20, metadata=(("request_id", "r-2"),))
        assert_shows_what_the_application_says(process)
        assert "Traceback (most recent call last):\n  File" in log.read_text()
        assert len(processes_with(mark)) > 3
    finally:
        process.kill()
        process.communicate()
    assert left_with(mark) == []


def assert_shows_what_the_application_says(process: subprocess.Popen[str]) -> None:
    """Read until the line of the second call has come."""
    assert process.stdout is not None
    assert process.stderr is not None
    printed = process.stdout.readline()
    assert printed.startswith("(built:Counter pid=")
    assert printed.endswith(") printed apple\n")
    lines = []
    for line in process.stderr:
        prefix, _, text = line.rstrip().partition(") ")
        if prefix.startswith("(built:Counter pid="):
            lines.append(text)
        if "CALL /shop.Shop/Buy INTERNAL" in line:
            break
    ends = [(line.split()[0], line.partition(" r-")[2]) for line in lines if " r-" in line]
    assert ("INFO", "1 /shop.Shop/Buy -- logged apple") in ends
    assert ("ERROR", "2 /shop.Shop/Buy -- /shop.Shop/Buy failed, request_id r-2") in ends
    assert any(level == "INFO" and text.startswith("1 -- CALL /shop.Shop/Buy OK ") for level, text in ends)
    assert lines.index("Traceback (most recent call last):") < lines.index("ValueError: not an apple")


def test_sigterm_in_the_middle_of_the_start_leaves_nothing(project: Path, config: Path, temp: Path) -> None:
    mark = uuid.uuid4().hex
    process = start(project, config, mark, temp)
    deadline = time.monotonic() + 60
    while not any("raylet" in command for command in processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Shutting down …" in errors
    assert "Traceback" not in errors
    assert left_with(mark) == []


def test_a_name_needs_a_module(sdk: Run, config: Path) -> None:
    result = sdk("run", str(config), "--name", "shop")
    assert result.returncode == 2
    assert "names its applications" in only_line(result)


def test_a_deployment_that_the_application_lacks(sdk: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("{name: Counter", "{name: Conter"))
    result = sdk("run", str(config))
    assert result.returncode == 2
    assert result.stderr.splitlines()[1].partition("serve.yaml")[2] == (
        ":8: application 'built' has no deployment 'Conter'; did you mean 'Counter'?"
    )


def test_errors_in_the_file_are_listed(sdk: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("shop_app:build", "shop_ap:build").replace("args", "arg"))
    result = sdk("run", str(config))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert [line.partition("serve.yaml")[2] for line in result.stderr.splitlines()] == [
        ": 2 problems",
        f":4: application 'built': no module named 'shop_ap' in {config.parents[1]}",
        ":5: applications[0].arg is unknown; did you mean args?",
    ]


def test_a_wrong_environment_variable(sdk: Run, config: Path) -> None:
    result = sdk("run", str(config), SDK_GRPC_PORT="none")
    assert result.returncode == 2
    assert "SDK_GRPC_PORT must be a whole number, not 'none'" in only_line(result)

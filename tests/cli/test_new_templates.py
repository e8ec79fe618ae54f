"""Every kind of project of ``sdk new`` passes its own checks, in one run of each tool for all of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version
from ray.serve.schema import ServeDeploySchema

from codegen import scaffold
from codegen.errors import CodegenError
from sdk.cli.dashboards.command import monitoring_files
from tests.support.command_server import command_server
from tests.support.type_checkers import mypy

BIN = Path(sys.executable).parent
# test_new.py and test_newcomer.py have the tests of `service`, except for pyright.
KINDS = [kind for kind in scaffold.TEMPLATES if kind != "service"]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project of each kind."""
    folder = tmp_path_factory.mktemp("projects")
    for kind in scaffold.TEMPLATES:
        # With the longest names, lines keep to their width.
        names = scaffold.choose_names(_name(kind), service=_name(kind).title().replace("_", ""), template=kind)
        scaffold.create(folder / kind, names, {f"monitoring/{name}": b"" for name in monitoring_files()})
    return folder


def _name(kind: str) -> str:
    return kind.ljust(scaffold._LONGEST - 1, "n") + "x"


def tool(folder: Path, *command: str) -> str:
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(str(folder / kind) for kind in KINDS),
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",  # the installed plugins take longer to import than pytest
    )
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_classes_fit_their_protos(projects: Path) -> None:
    for kind in KINDS:
        done = command_server().run(["check", "--strict", f"{_name(kind)}.service"], projects / kind, os.environ)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": fits") == (2 if kind == "composition" else 1)  # with the scorer


def test_their_tests_pass(projects: Path) -> None:
    tests = [f"{kind}/tests/test_service.py" for kind in KINDS]
    options = [
        "-q",
        "-p",
        "sdk.pytest_plugin",
        "--noconftest",
        "--import-mode=importlib",
        "-c",
        os.devnull,
    ]
    assert "7 passed" in tool(projects, "pytest", *options, *tests)


def test_ruff_finds_nothing(projects: Path) -> None:
    tool(projects, "ruff", "check", ".")
    tool(projects, "ruff", "format", "--check", ".")


def test_mypy_finds_nothing(projects: Path) -> None:
    packages = [argument for kind in KINDS for argument in ("-p", _name(kind))]
    checked = mypy([], [projects / kind for kind in KINDS], *packages, cwd=projects)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pyright_finds_nothing(projects: Path) -> None:
    """One run has the settings of each project for its folder."""
    config: dict[str, list[Any]] = {"include": [], "ignore": [], "executionEnvironments": []}
    for kind in scaffold.TEMPLATES:
        settings = tomllib.loads((projects / kind / "pyproject.toml").read_text())["tool"]["pyright"]
        assert settings.keys() - {"ignore"} == {"include"}
        for name, folders in settings.items():
            config[name] += [f"{kind}/{folder}" for folder in folders]
        config["executionEnvironments"].append({"root": kind})
    (projects / "pyrightconfig.json").write_text(json.dumps(config))
    found = json.loads(tool(projects, "pyright", f"--pythonpath={sys.executable}", "--outputjson"))
    assert found["generalDiagnostics"] == []
    files = [file for folder in config["include"] for file in (projects / folder).rglob("*.*")]
    assert found["summary"]["filesAnalyzed"] == len([file for file in files if file.suffix in (".py", ".pyi")])


@pytest.mark.parametrize("kind", KINDS)
def test_files_agree(projects: Path, kind: str) -> None:
    """The config file, the manifest and the image serve the application, and the README names what is there."""
    project, package = projects / kind, _name(kind)
    manifest = yaml.safe_load((project / "rayservice.yaml").read_text())
    embedded = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    config = ServeDeploySchema.model_validate(yaml.safe_load((project / "serve.yaml").read_text()))
    for schema in (embedded, config):
        (application,) = schema.applications
        assert application.import_path == f"{package}.service:app"
        (deployment,) = application.deployments
        assert f"class {deployment.name}(" in (project / package / "service.py").read_text()
    cluster = manifest["spec"]["rayClusterConfig"]
    image = (project / "Dockerfile").read_text()
    # The image has no wget: KubeRay probes Ray 2.53 and later over HTTP, and RayService's workers as they say.
    assert Version(cluster["rayVersion"]) >= Version("2.53")
    head, worker = (
        group["template"]["spec"]["containers"][0] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    )
    assert worker["readinessProbe"]["grpc"] == {"port": worker["ports"][0]["containerPort"], "service": "ready"}
    assert not [name for name in head if name.endswith("Probe")]
    assert f'"ray[serve]=={cluster["rayVersion"]}"' in image
    assert f'CMD ["sdk", "run", "{package}.service:app"' in image
    readme = (project / "README.md").read_text()
    for path in re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE):
        assert (project / path).exists(), path


def test_a_name_that_a_kind_uses() -> None:
    with pytest.raises(CodegenError, match="'Token' can't name a service"):
        scaffold.choose_names("x", service="Token", template="streaming")
    assert scaffold.choose_names("x", service="Token").service == "Token"

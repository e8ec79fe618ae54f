"""Protos from distributions on PyPI, generated, imported and type-checked."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from codegen import compile as compiler
from codegen.sources import find
from tests.support.type_checkers import mypy

REPO = Path(__file__).parent.parent.parent

# Folder of the protos in each distribution.
DISTRIBUTIONS = {"googleapis-common-protos": "", "grpc-google-iam-v1": "", "grpcio-tools": "grpc_tools/_proto/"}

pytestmark = pytest.mark.timeout(600)  # a first run of the type checkers analyses gRPC and protobuf


@pytest.fixture(scope="module")
def protos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protos")
    for name, below in DISTRIBUTIONS.items():
        for file in importlib.metadata.files(name) or ():
            if file.suffix == ".proto":
                target = folder / file.as_posix().removeprefix(below)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_binary())
    return folder


@pytest.fixture(scope="module", params=["", "corpus.gen"])
def tree(protos: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A folder to put on ``sys.path``, and the package in it."""
    root = tmp_path_factory.mktemp("corpus")
    output = compiler.run(find([protos]), package=request.param)
    for path, content in output.files.items():
        file = root / request.param.replace(".", "/") / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root, request.param


def modules(root: Path, pattern: str) -> list[str]:
    return sorted(".".join(path.relative_to(root).with_suffix("").parts) for path in root.rglob(pattern))


def test_the_corpus_is_not_empty(protos: Path, tree: tuple[Path, str]) -> None:
    assert len(list(protos.rglob("*.proto"))) > 75
    names = {name.rpartition(".")[2] for name in modules(tree[0], "*_sdk.py")}
    assert {"operations_proto_sdk", "iam_policy_sdk", "locations_sdk"} <= names


def test_every_module_imports(tree: tuple[Path, str]) -> None:
    root, package = tree
    # In a folder on sys.path, Python finds installed packages first, unless they are namespace packages.
    installed = () if package else ("google.iam.", "google.protobuf.")
    names = [name for name in modules(root, "*_*.py") if not name.startswith(installed)]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *names],
        env={"PYTHONPATH": os.pathsep.join([str(root), str(REPO)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_mypy_reports_nothing(tree: tuple[Path, str]) -> None:
    root, _ = tree
    done = mypy(sorted(root.rglob("*_sdk.py")), [root, REPO], "--explicit-package-bases", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_reports_nothing(tree: tuple[Path, str]) -> None:
    root, _ = tree
    config = {"include": ["**/*_sdk.py"], "extraPaths": [str(REPO)], "pythonVersion": "3.11"}
    (root / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", f"--pythonpath={sys.executable}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("0 errors, 0 warnings"), done.stdout + done.stderr

"""Run every command in the READMEs of the examples, and compare the output with the README."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import sdk.testing
from sdk.cli.main import main
from sdk.cli.target import load_target
from tests.support.readme import EXAMPLES, ROOT, commands, missing_package

WRITTEN = [folder for folder in EXAMPLES if commands(folder)]
REPO = ROOT.parent


def test_every_example_is_here() -> None:
    assert [folder.name for folder in ROOT.iterdir() if folder.is_dir() and folder not in EXAMPLES] == []
    assert len(WRITTEN) == 10


@pytest.mark.parametrize("example", WRITTEN, ids=lambda folder: folder.name)
def test_commands(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := missing_package(example):
        pytest.skip(missing)
    monkeypatch.chdir(example)
    monkeypatch.syspath_prepend(str(example))
    written = commands(example)
    (served,) = [command for command in written if command.name == "sdk run"]
    with sdk.testing.serve(applications(served.words)) as server:
        for command in written:
            words = [word.replace("localhost:9000", server.target) for word in command.words]
            if command.name == "python":
                assert run(words[1:]) == command.output
            elif command.name == "sdk codegen":
                assert CliRunner().invoke(main, [*words[1:], "--check"]).exit_code == 0
            elif command.name == "sdk call" and "call" not in main.commands:
                continue
            elif command.name != "sdk run":
                result = CliRunner().invoke(main, words[1:])
                assert (result.stdout, result.exit_code) == (command.output, 0), result.output


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_the_files_that_a_readme_names_are_there(example: Path) -> None:
    text = (example / "README.md").read_text()
    named = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    assert len(named) > 2
    for name in named:
        assert list(example.glob(name)) or (example / name).exists(), name


# Packages that `ray-grpc-sdk[serve]` brings, itself or with Ray, and those of other modules.
BROUGHT = {"google", "grpc", "numpy", "pydantic", "ray", "requests", "sdk"}
PACKAGES = {"PIL": "pillow", "grpc_status": "grpcio-status", "joblib": "scikit-learn", "sklearn": "scikit-learn"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_a_readme_installs_what_its_example_imports(example: Path) -> None:
    own = {path.stem for path in example.glob("*.py")}
    imported: set[str] = set()
    for path in example.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported.update(name.partition(".")[0] for name in names)
    needed = imported - own - BROUGHT - set(sys.stdlib_module_names)
    installed = re.findall(r"^    pip install (.*)$", (example / "README.md").read_text(), re.MULTILINE)
    words = {word for line in installed for word in shlex.split(line)}
    assert {PACKAGES[name] for name in needed} <= words


def applications(words: tuple[str, ...]) -> dict[str, Any]:
    """Return the applications that `sdk run` would serve, by name."""
    target = words[2]
    if target.endswith(".yaml"):
        from tests.examples.test_config_example import built, parsed

        return {application.name: built(application) for application in parsed(Path(target)).applications}
    _, app = load_target(target)
    return {"default": app}


def run(words: list[str]) -> str:
    """Return the output of a script in a separate process: clients must not need the modules that this one imported."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout

"""Runs mypy --strict and pyright over the `*_use.py` files of this folder, with newly generated code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codegen.sync import Options, update
from tests.support.type_checkers import mypy

HERE = Path(__file__).parent
REPO = HERE.parent.parent
FILES = sorted(HERE.glob("*_use.py"))
EXPECT = re.compile(r"# expect: (\S+) (\S+)$")

Findings = set[tuple[str, int, str]]

pytestmark = pytest.mark.timeout(600)  # a first run analyses all of Ray


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generated")
    protos = [REPO / "protos" / "user_defined_protos.proto", REPO / "tests" / "codegen" / "protos"]
    update(Options(tuple(protos), out))
    return out


def expected(column: int) -> Findings:
    return {
        (file.name, number, match[column])
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if (match := EXPECT.search(line)) and match[column] != "-"
    }


def test_mypy_finds_what_is_expected_and_nothing_else(generated: Path) -> None:
    done = mypy(FILES, [generated, REPO], "--output=json")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    # The stubs of mypy-protobuf use names that they mark as deprecated.
    rows = [row for line in done.stdout.splitlines() if not (row := json.loads(line))["file"].endswith("_pb2_grpc.pyi")]
    found = {(Path(row["file"]).name, row["line"], row["code"]) for row in rows if row["severity"] == "error"}
    assert found == expected(1), done.stdout


def test_pyright_finds_what_is_expected_and_nothing_else(generated: Path, tmp_path: Path) -> None:
    config = {
        "include": [os.path.relpath(file, tmp_path) for file in FILES],  # pyright ignores absolute paths here
        "extraPaths": [str(generated), str(REPO)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "standard",
        "reportDeprecated": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", f"--project={tmp_path}"]
    done = subprocess.run(
        [*command, f"--pythonpath={sys.executable}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    rows = report["generalDiagnostics"]
    found = {
        (Path(row["file"]).name, row["range"]["start"]["line"] + 1, row.get("rule", ""))
        for row in rows
        if row["severity"] == "error"
    }
    assert found == expected(2), json.dumps(rows, indent=1)

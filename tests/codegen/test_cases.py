"""Golden outputs: their diff shows how a change to templates or rules changes generated code.

A case is a folder with protos and, in ``expected``, what comes out: every ``_sdk`` module, and in ``tree.txt`` the
other files with how they import one another. ``case.json`` says what is not as usual: ``protos``, another folder of
protos; ``package``, for the output to be one; ``include``, a distribution whose protos are imported.

To accept a change: ``python -m tests.codegen.test_cases``.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from codegen import compile as compiler
from codegen.render import tool_version
from codegen.sources import find
from tests.support.type_checkers import mypy

HERE = Path(__file__).parent
REPO = HERE.parent.parent
CASES = sorted(path.name for path in (HERE / "cases").iterdir())
PRAGMAS = "# ruff: noqa\n# fmt: off\n"

pytestmark = pytest.mark.timeout(600)  # a first run of the type checkers analyses gRPC and protobuf


def options(case: str) -> dict[str, str]:
    file = HERE / "cases" / case / "case.json"
    return json.loads(file.read_text()) if file.exists() else {}


def generate(case: str, package: str) -> dict[str, str]:
    given = options(case)
    protos = (HERE / "cases" / case / given.get("protos", "protos")).resolve()
    includes = (
        [Path(str(importlib.metadata.distribution(given["include"]).locate_file("")))] if "include" in given else []
    )
    output = compiler.run(find([protos], includes), includes, package)
    return {path: content.decode() for path, content in output.files.items()}


def expected(files: Mapping[str, str]) -> dict[str, str]:
    """Return the committed part of the output. That of other generators changes with every version."""
    # A new version of the tool must not change these files either.
    kept = {
        path: text.replace(f"(ray-grpc-sdk {tool_version()})", "(ray-grpc-sdk VERSION)", 1)
        for path, text in files.items()
        if path.endswith("_sdk.py")
    }
    tree = []
    for path, text in sorted(files.items()):
        tree.append(path)
        if path not in kept:
            tree += [f"    {line}" for line in text.splitlines() if re.match(r"(from|import) .*_pb2", line)]
    return {**kept, "tree.txt": "\n".join(tree) + "\n"}


@pytest.fixture(scope="module")
def rooted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each case generated as a root on ``sys.path``."""
    return put(tmp_path_factory.mktemp("rooted"), "")


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each case generated as a package, below one folder."""
    return put(tmp_path_factory.mktemp("packaged"), "some.package")


def put(folder: Path, package: str) -> dict[str, Path]:
    # Cases that differ only by their package would be the same here.
    for case in (case for case in CASES if "package" not in options(case)):
        write(folder / case, generate(case, package))
    return {path.name: path for path in sorted(folder.iterdir())}


def write(folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


# Types are correct for every renamed symbol, also in the code of users.
USE = """
from typing_extensions import assert_type
from {0}words_sdk import Hidden_lambda, None_True, None_True___Deep, None__, importBase_, importClient, importSyncClient
from {0}words_pb2 import Any, int, match, type
from {1}lambda__ import shop_pb2
from {1}lambda__.shop_sdk import ShopsSyncClient


class Implementation(importBase_):
    def class__(self, request: None__) -> None_True:
        return None_True()

    async def type_(self, request: Any) -> int:
        return int()


assert_type(importSyncClient("localhost:1").class__(None__()), None_True)
assert_type(ShopsSyncClient("localhost:1").Open(shop_pb2.Shop()).name, str)


async def use() -> None:
    assert_type(await importClient("localhost:1").match(type()), match)
    async for reply in importClient("localhost:1").None_(None_True___Deep()):
        assert_type(reply, Hidden_lambda)
"""


def uses(folder: Path) -> list[Path]:
    """Write a module that uses the roots, and one that uses the packages."""
    texts = {"use_rooted.py": USE.format("", ""), "use_packaged.py": USE.format("words.", "modules.")}
    write(folder, texts)
    return [folder / name for name in texts]


def modules(folder: Path, pattern: str = "*_sdk.py") -> list[str]:
    found = sorted(path.relative_to(folder) for path in folder.rglob(pattern))
    return [".".join(path.with_suffix("").parts) for path in found]


@pytest.mark.parametrize("case", CASES)
def test_the_output_is_what_is_committed(case: str) -> None:
    folder = HERE / "cases" / case / "expected"
    committed = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.*")}
    made = expected(generate(case, options(case).get("package", "")))
    assert made.keys() == committed.keys()
    for path, text in made.items():
        assert text == committed[path], path


IMPORT_ALL = """
import importlib, sys
sys.path[:0] = sys.argv[2:]
for name in sys.argv[1].split():
    importlib.import_module(name)
# (grpc itself imports grpc_tools where that is installed.)
assert not {name.partition(".")[0] for name in sys.modules} & {"ray", "jinja2", "mypy_protobuf", "codegen.render"}
"""


def test_every_module_imports_from_a_root(rooted: dict[str, Path]) -> None:
    names = [name for folder in rooted.values() for name in modules(folder, "*_*.py")]
    assert {"words_sdk", "_2fa_pb2_grpc", "lambda__.in_.till_sdk"} <= set(names)
    imports(names, [*rooted.values()])


def test_every_module_imports_as_part_of_a_package(packaged: dict[str, Path]) -> None:
    names = [f"{case}.{name}" for case, folder in packaged.items() for name in modules(folder, "*_*.py")]
    assert "modules._3rd.my_file_sdk" in names
    imports(names, [packaged["words"].parent])


def imports(names: list[str], roots: list[Path]) -> None:
    # In a separate interpreter: generated modules are added to the process-wide descriptor pool.
    command = [sys.executable, "-W", "error", "-c", IMPORT_ALL, " ".join(names), *map(str, roots)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_both_layouts_live_in_one_process(rooted: dict[str, Path], packaged: dict[str, Path]) -> None:
    names = ["_2fa_sdk", "modules._2fa_sdk", "syntax_three_sdk", "syntaxes.syntax_three_sdk"]
    imports(names, [rooted["modules"], rooted["syntaxes"], packaged["modules"].parent])


def test_mypy_reports_nothing(rooted: dict[str, Path], packaged: dict[str, Path], tmp_path: Path) -> None:
    files = [path for folder in (*rooted.values(), *packaged.values()) for path in folder.rglob("*_sdk.py")]
    files += uses(tmp_path)
    path = [*rooted.values(), packaged["words"].parent, tmp_path, REPO]
    done = mypy(files, path, "--explicit-package-bases")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_reports_nothing(rooted: dict[str, Path], packaged: dict[str, Path], tmp_path: Path) -> None:
    # pyright needs its files below its configuration.
    for name, folders in (("rooted", rooted), ("packaged", packaged)):
        for case, folder in folders.items():
            shutil.copytree(folder, tmp_path / name / case)
    config = {
        "include": ["**/*_sdk.py", "use_*.py"],
        "extraPaths": [str(REPO), "packaged", *(f"rooted/{case}" for case in rooted)],
        "pythonVersion": "3.11",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    uses(tmp_path)
    command = [sys.executable, "-m", "pyright", f"--pythonpath={sys.executable}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("0 errors, 0 warnings")


def test_ruff_changes_nothing(rooted: dict[str, Path], packaged: dict[str, Path], tmp_path: Path) -> None:
    for name, folders in (("rooted", rooted), ("packaged", packaged)):
        for case, folder in folders.items():
            shutil.copytree(folder, tmp_path / name / case)
            files = [str(path.relative_to(folder)) for path in folder.rglob("*_sdk.py")]
            for path in files:
                # The two lines that disable a project's settings would hide every finding.
                text = (folder / path).read_text()
                assert PRAGMAS in text
                (tmp_path / name / case / path).write_text(text.replace(PRAGMAS, "", 1))
            # In its folder: imports of modules there are a separate block.
            ruff(tmp_path / name / case, "check", "--select=F,I,E4,E7,E9,W", *files)
    ruff(tmp_path, "format", "--diff", *(str(path) for path in tmp_path.rglob("*_sdk.py")))


def ruff(folder: Path, command: str, *arguments: str) -> None:
    program = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [program, command, "--isolated", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def accept() -> None:
    for case in CASES:
        folder = HERE / "cases" / case / "expected"
        shutil.rmtree(folder, ignore_errors=True)
        write(folder, expected(generate(case, options(case).get("package", ""))))


if __name__ == "__main__":
    accept()

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from codegen import cli
from codegen import compile as compiler
from codegen.errors import CodegenError

PROTO = (
    'syntax = "proto3";\npackage greet;\nmessage Hello {}\nservice Greeter { rpc SayHello(Hello) returns (Hello); }\n'
)
NAMES = ["greet_pb2.py", "greet_pb2.pyi", "greet_pb2_grpc.py", "greet_pb2_grpc.pyi", "greet_sdk.py"]

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "greet.proto").write_text(PROTO)
    return lambda *arguments: CliRunner().invoke(cli.codegen, arguments)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_only_what_changes(run: Run, tmp_path: Path) -> None:
    first = run("protos", "--out", "gen")
    assert (first.exit_code, first.stdout) == (0, "gen: 5 files from 1 proto: 5 written, 0 up to date\n")
    assert sorted(content(tmp_path / "gen")) == NAMES
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "gen").iterdir()}
    (tmp_path / "gen" / "greet_sdk.py").write_text("edited")
    second = run("protos/greet.proto", "--out", "gen")
    assert (second.exit_code, second.stdout) == (0, "gen: 5 files from 1 proto: 1 written, 4 up to date\n")
    touched = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert touched == ["greet_sdk.py"]


def test_check(run: Run, tmp_path: Path) -> None:
    stale = run("protos", "--out", "gen", "--check")
    assert stale.exit_code == 1
    assert stale.stderr.splitlines() == [
        *(f"gen/{name} is stale" for name in NAMES),
        "Error: 5 of 5 files from 1 proto not up to date; run: sdk codegen protos --out gen",
    ]
    assert not (tmp_path / "gen").exists()
    run("protos", "--out", "gen")
    fresh = run("protos", "--out", "gen", "--check")
    assert (fresh.exit_code, fresh.stdout) == (0, "gen: 5 files from 1 proto, all up to date\n")


def test_a_module_whose_services_are_gone_is_removed(run: Run, tmp_path: Path) -> None:
    run("protos", "--out", "gen")
    (tmp_path / "gen" / "mine_sdk.py").write_text("# a user's own")
    for name in ("greet", "mine"):
        (tmp_path / "protos" / f"{name}.proto").write_text(f'syntax = "proto3";\nmessage In{name} {{}}\n')
    assert "gen/greet_sdk.py is stale" in run("protos", "--out", "gen", "--check").stderr
    assert "1 removed" in run("protos", "--out", "gen").stdout
    assert not (tmp_path / "gen" / "greet_sdk.py").exists()
    assert (tmp_path / "gen" / "mine_sdk.py").exists()


def test_an_error_in_one_proto_changes_nothing(run: Run, tmp_path: Path) -> None:
    run("protos", "--out", "gen")
    before = content(tmp_path / "gen")
    (tmp_path / "protos" / "greet.proto").write_text(PROTO + "message New {}\n")
    (tmp_path / "protos" / "wrong.proto").write_text('syntax = "proto3";\nmessage A {\n  int32 x = 1\n}\n')
    result = run("protos", "--out", "gen")
    assert (result.exit_code, result.stderr) == (1, 'Error: protos/wrong.proto:4:1: Expected ";".\n')
    assert content(tmp_path / "gen") == before


def test_imports_from_an_include_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shared" / "base").mkdir(parents=True)
    (tmp_path / "shared" / "base" / "base.proto").write_text('syntax = "proto3";\npackage base;\nmessage Base {}\n')
    text = PROTO.replace("package", 'import "base/base.proto";\npackage').replace("(Hello)", "(base.Base)")
    (tmp_path / "protos" / "greet.proto").write_text(text)
    assert run("protos", "--out", "gen").exit_code == 1
    assert run("protos", "-I", "shared", "--out", "gen").exit_code == 0
    assert "from base import base_pb2" in (tmp_path / "gen" / "greet_sdk.py").read_text()
    # A file below an include folder keeps the name that imports give it.
    assert run("shared/base/base.proto", "-I", "shared", "--out", "gen").exit_code == 0
    assert (tmp_path / "gen" / "base" / "base_pb2.py").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "--out", "gen"], "missing does not exist"),
        (["empty", "--out", "gen"], "no .proto file found in empty"),
        (["note.txt", "--out", "gen"], "note.txt is not a .proto file"),
        (["protos", "-I", "missing", "--out", "gen"], "missing does not exist"),
        (["protos", "-I", "note.txt", "--out", "gen"], "--include note.txt is not a folder"),
        (["protos", "--out", "note.txt"], "--out note.txt is not a folder"),
        (["protos", "--out", "note.txt/gen"], "can't write note.txt/gen: Not a directory"),
    ],
)
def test_wrong_use(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("")
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (2, f"Error: {message}\n")


def test_without_the_codegen_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("protos", "--out", "gen")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: grpcio-tools, jinja2, mypy-protobuf not installed: pip install 'ray-grpc-sdk[codegen]'\n"
    )


def test_a_write_that_fails_leaves_the_folder_as_it_was(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("protos", "--out", "gen")
    before = content(tmp_path / "gen")
    (tmp_path / "protos" / "greet.proto").write_text(PROTO + "message New {}\n")
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "_sdk" in path.name:
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    output = compiler.run(compiler.find([Path("protos")], []), [])
    with pytest.raises(CodegenError, match=r"can't write .*: No space left on device"):
        compiler.write(output, compiler.compare(output, Path("gen")), Path("gen"))
    assert content(tmp_path / "gen") == before


def test_hidden_folders_are_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "protos" / ".venv").mkdir()
    (tmp_path / "protos" / ".venv" / "x.proto").write_text("not a proto")
    assert run("protos", "--out", "gen").exit_code == 0


def test_no_plugin_has_to_be_on_the_path_and_the_users_folder_is_not_imported_from(tmp_path: Path) -> None:
    (tmp_path / "greet.proto").write_text(PROTO)
    for name in ("codegen", "google", "jinja2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    code = "from codegen.cli import codegen; import os; os.chdir('..'); codegen()"
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, "greet.proto", "--out", "gen"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gen" / "greet_sdk.py").exists()

"""``sdk codegen`` in daily use."""

from __future__ import annotations

import io
import os
import pty
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from codegen.cli import codegen
from codegen.progress import reporter
from tests.support.project import FILES, PROTO, Sdk, content, message, outcome, put
from tests.support.sdk_command import SDK


def test_it_writes_only_what_changes(sdk: Sdk) -> None:
    assert outcome(sdk("protos", "--out", "gen")) == (0, "gen: 5 files from 1 proto: 5 written, 0 up to date\n", "")
    assert sorted(content("gen")) == FILES
    before = {path: path.stat().st_mtime_ns for path in Path("gen").iterdir()}
    Path("gen/greet_sdk.py").write_text("edited")
    assert sdk("protos/greet.proto", "--out", "gen").stdout == "gen: 5 files from 1 proto: 1 written, 4 up to date\n"
    touched = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert touched == ["greet_sdk.py"]


@pytest.mark.parametrize(
    ("change", "written"),
    [
        (lambda: put({"protos/greet.proto": PROTO.replace("message", "// New.\nmessage")}), 2),
        (lambda: Path("gen/greet_pb2.py").unlink(), 1),
        (lambda: Path("gen/greet_pb2.pyi").write_text("edited"), 1),
        (lambda: Path("gen/.sdk-codegen.json").unlink(), 0),
        (lambda: shutil.rmtree("gen/.sdk_codegen_cache"), 0),
        (lambda: None, 0),
    ],
    ids=["comment", "deleted", "edited", "no manifest", "no cache", "nothing"],
)
def test_a_second_run_writes_what_a_change_asks_for(sdk: Sdk, change: object, written: int) -> None:
    assert callable(change)
    sdk("protos", "--out", "gen")
    change()
    assert outcome(sdk("protos", "--out", "gen")) == (
        0,
        f"gen: 5 files from 1 proto: {written} written, {5 - written} up to date\n",
        "",
    )
    assert outcome(sdk("protos", "--out", "gen", "--check"))[0] == 0


def test_an_import_that_changes_is_a_change(sdk: Sdk) -> None:
    put({"protos/a.proto": message("a", 'import "b.proto";\n', "b.B b = 1;"), "deps/b.proto": message("b")})
    arguments = ["protos/a.proto", "-I", "deps", "--out", "gen"]
    sdk(*arguments)
    assert "0 written" in sdk(*arguments).stdout
    put({"deps/b.proto": message("b").replace("message B", "// New.\nmessage C {}\nmessage B")})
    # The output of a.proto and the manifest are unchanged; the cache shows that it was generated again.
    manifest, key = Path("gen/.sdk-codegen.json").read_bytes(), Path("gen/.sdk_codegen_cache/key").read_text()
    assert "0 written" in sdk(*arguments).stdout
    assert Path("gen/.sdk-codegen.json").read_bytes() == manifest
    assert Path("gen/.sdk_codegen_cache/key").read_text() != key


def test_nothing_is_written_and_no_plugin_runs_when_nothing_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["protos", "--out", "gen"]
    assert CliRunner().invoke(codegen, arguments).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("gen").iterdir()}
    monkeypatch.delattr("codegen.compile.Protoc.generate")
    assert CliRunner().invoke(codegen, arguments).stdout == "gen: 5 files from 1 proto: 0 written, 5 up to date\n"
    assert {path: path.stat().st_mtime_ns for path in Path("gen").iterdir()} == before


def test_another_version_of_a_tool_generates_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CliRunner().invoke(codegen, ["protos", "--out", "gen"])
    monkeypatch.setattr("codegen.compile._tools_digest", lambda: "another")
    monkeypatch.delattr("codegen.compile.Protoc.generate")
    assert isinstance(CliRunner().invoke(codegen, ["protos", "--out", "gen"]).exception, AttributeError)


def test_check_names_the_version_that_wrote_stale_files(sdk: Sdk) -> None:
    sdk("protos", "--out", "gen")
    stub = Path("gen/greet_pb2_grpc.py")
    installed = version("grpcio-tools")
    assert f"GRPC_GENERATED_VERSION = '{installed}'" in stub.read_text()
    stub.write_text(stub.read_text().replace(f"= '{installed}'", "= '1.70.0'"))
    assert outcome(sdk("protos", "--out", "gen", "--check")) == (
        1,
        "",
        "gen/greet_pb2_grpc.py is stale\n"
        f"grpcio-tools 1.70.0 wrote the stale files, and {installed} is installed\n"
        "error: gen is not up to date; install grpcio-tools==1.70.0, or run: sdk codegen protos --out gen\n",
    )


def test_check(sdk: Sdk) -> None:
    put({"protos/gone.proto": message("gone")})
    sdk("protos", "--out", "gen")
    Path("protos/gone.proto").unlink()
    Path("gen/greet_pb2.py").unlink()
    Path("gen/greet_sdk.py").write_text("edited")
    before = content("gen")
    assert outcome(sdk("protos", "--out", "gen", "--check")) == (
        1,
        "",
        "gen/gone_pb2.py is extra: no proto generates it\n"
        "gen/gone_pb2.pyi is extra: no proto generates it\n"
        "gen/gone_pb2_grpc.py is extra: no proto generates it\n"
        "gen/gone_pb2_grpc.pyi is extra: no proto generates it\n"
        "gen/greet_pb2.py is missing\n"
        "gen/greet_sdk.py is stale\n"
        "error: gen is not up to date; run: sdk codegen protos --out gen\n",
    )
    assert content("gen") == before
    sdk("protos", "--out", "gen")
    assert outcome(sdk("protos", "--out", "gen", "--check")) == (0, "gen: 5 files from 1 proto, all up to date\n", "")


def test_check_creates_no_folder_and_does_not_trust_the_manifest(sdk: Sdk) -> None:
    assert outcome(sdk("protos", "-I", "protos", "--exclude", "x y", "--out", "gen", "--check")) == (
        1,
        "",
        "".join(f"gen/{name} is missing\n" for name in FILES)
        + "error: gen is not up to date; run: sdk codegen protos --out gen -I protos --exclude 'x y'\n",
    )
    assert not Path("gen").exists()
    sdk("protos", "--out", "gen")
    manifest = Path("gen/.sdk-codegen.json")
    path = Path("gen/greet_sdk.py")
    old = path.read_bytes()
    path.write_bytes(old + b"# more\n")
    # The manifest was edited to match.
    from codegen.manifest import digest

    manifest.write_text(manifest.read_text().replace(digest(old), digest(path.read_bytes())))
    assert "gen/greet_sdk.py is stale\n" in sdk("protos", "--out", "gen", "--check").stderr


def test_an_error_in_one_proto_changes_nothing(sdk: Sdk) -> None:
    sdk("protos", "--out", "gen")
    before = content("gen")
    put({"protos/greet.proto": PROTO + "message New {}\n", "protos/wrong.proto": "syntax = 'proto3';\nmessage A\n"})
    assert sdk("protos", "--out", "gen").returncode == 1
    assert content("gen") == before


def test_imports_from_a_folder_and_the_names_that_files_get(sdk: Sdk) -> None:
    put({"shared/base/base.proto": message("base")})
    text = PROTO.replace("package", 'import "base/base.proto";\npackage').replace("(Hello)", "(base.Base)")
    put({"protos/greet.proto": text})
    assert sdk("protos", "-I", "shared", "--out", "gen").returncode == 0
    assert "from base import base_pb2" in Path("gen/greet_sdk.py").read_text()
    # A file or folder in an include folder keeps the name that imports give it.
    for given in ("shared/base/base.proto", "shared/base"):
        assert sdk(given, "-I", "shared", "--out", "kept").returncode == 0
        assert Path("kept/base/base_pb2.py").exists()


def test_several_roots_and_patterns_to_leave_out(sdk: Sdk) -> None:
    put(
        {
            "more/acme/a.proto": message("a"),
            "more/acme/a_test.proto": "not a proto",
            "more/vendor/deep/b.proto": "not a proto",
            "more/.venv/c.proto": "not a proto",
        }
    )
    done = sdk("protos", "more", "--exclude", "*_test.proto", "--exclude", "vendor/", "--out", "gen")
    assert outcome(done) == (0, "gen: 9 files from 2 protos: 9 written, 0 up to date\n", "")
    assert sorted(path for path in content("gen") if path.endswith("_pb2.py")) == ["acme/a_pb2.py", "greet_pb2.py"]


def test_a_tree_in_a_package(sdk: Sdk) -> None:
    put({"protos/acme/v1/a.proto": message("a", 'import "greet.proto";\n', "greet.Hello hello = 1;")})
    assert sdk("protos", "--out", "myapp/gen", "--package", "myapp.gen").returncode == 0
    code = "from myapp.gen.acme.v1 import a_pb2; from myapp.gen import greet_sdk; print(a_pb2.A().hello)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
    assert sdk("protos", "--out", "myapp/gen", "--package", "myapp.gen", "--check").returncode == 0
    wrong = sdk("protos", "--out", "myapp/gen", "--package", "my-app")
    assert outcome(wrong) == (2, "", "error: package 'my-app': 'my-app' can't name a Python package\n")


def test_a_package_grows_with_every_call(sdk: Sdk) -> None:
    put({"protos/a.proto": PROTO.replace("greet;", 'a;\nimport "greet.proto";').replace("(Hello)", "(greet.Hello)")})
    for proto in ("protos/greet.proto", "protos/a.proto"):
        assert sdk(proto, "-I", "protos", "--out", "myapp/gen", "--package", "myapp.gen").returncode == 0
    code = "from myapp.gen import a_sdk, greet_sdk, a_pb2_grpc"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def test_the_output_of_other_generators_for_a_plain_proto_is_not_changed(sdk: Sdk) -> None:
    text = message(
        "a",
        fields="""
        string some_name = 1;
        string other_name = 2 [json_name = "other", deprecated = true];
        google.protobuf.Timestamp time = 3;""",
        imports='import "google/protobuf/timestamp.proto";\n',
    )
    put({"protos/a.proto": text, "plain/x": ""})
    plugins = [f"--plugin={SDK.with_name(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    outputs = [f"--{name}_out=plain" for name in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", *plugins, *outputs, "a.proto"]
    subprocess.run(command, check=True, capture_output=True)
    for _ in range(2):  # from nothing, and after a change
        assert sdk("protos/a.proto", "--out", "gen").returncode == 0
        assert content("gen").items() == content("plain").items() - {("x", b"")}
        put({"gen/a_pb2.py": "# changed"})


def test_no_plugin_has_to_be_on_the_path_and_the_users_folder_is_not_imported_from(sdk: Sdk) -> None:
    put({f"{name}/__init__.py": "raise RuntimeError('the wrong one')" for name in ("codegen", "google", "jinja2")})
    done = sdk("protos", "--out", "gen", PATH="/usr/bin:/bin")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_warning_of_protoc_is_shown(sdk: Sdk) -> None:
    put({"protos/a.proto": message("a", 'import "greet.proto";\n')})
    assert outcome(sdk("protos", "--out", "gen")) == (
        0,
        "gen: 9 files from 2 protos: 9 written, 0 up to date\n",
        "protos/a.proto:3:1: warning: Import greet.proto is unused.\n",
    )


def in_terminal(*arguments: str, **environment: str) -> str:
    """Run the command with a terminal for stderr; return what it wrote there."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [SDK, "codegen", *arguments],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm"} | environment,
        check=False,
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # the terminal's other end is closed, and all was read
        while True:
            said += os.read(ours, 65536)
    os.close(ours)
    return said.decode()


def test_colours_are_for_terminals(project: Path) -> None:
    assert in_terminal("none", "--out", "gen") == "\x1b[31m\x1b[1merror:\x1b[0m none does not exist\r\n"
    assert in_terminal("none", "--out", "gen", NO_COLOR="1") == "error: none does not exist\r\n"


def test_a_run_on_many_protos_shows_its_progress_in_a_terminal(project: Path) -> None:
    assert in_terminal("protos", "--out", "gen") == ""
    put({f"protos/p{number}.proto": message(f"p{number}") for number in range(60)})
    shown = in_terminal("protos", "--out", "gen")
    for step in ("generating code for 61 protos", "writing 241 files"):
        assert step in shown
    assert "reading the protos" in in_terminal("protos", "--out", "gen")


def test_the_progress_is_shown_while_a_plugin_has_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", terminal)
    with reporter() as bar:
        bar.expect(60)
        with redirect_stderr(io.StringIO()) as captured:
            bar.begin("generating")
        assert ("generating" in terminal.getvalue(), captured.getvalue()) == (True, "")


def test_help_shows_examples(sdk: Sdk) -> None:
    done = sdk("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  sdk codegen protos/ --out src/myapp/gen --package myapp.gen\n" in done.stdout

"""Every error of ``sdk codegen``, with its complete output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from codegen.cli import codegen
from tests.support.project import FILES, PROTO, Sdk, content, message, outcome, put

LONG = "a" * 300


def test_a_syntax_error_has_the_line_of_protoc_and_the_path_that_was_given(sdk: Sdk) -> None:
    put({"protos/wrong.proto": 'syntax = "proto3";\nmessage A {\n  int32 x = 1\n}\n', "elsewhere/x": ""})
    said = 'protos/wrong.proto:4:1: Expected ";".\nerror: 1 error in the protos\n'
    assert outcome(sdk("protos", "--out", "gen")) == (1, "", said)
    assert outcome(sdk("./protos/wrong.proto", "--out", "gen")) == (1, "", said)
    os.chdir("elsewhere")
    for given in ("../protos", str(Path("../protos").resolve())):
        done = CliRunner().invoke(codegen, [given, "--out", "gen"])
        assert done.stderr == f'{given}/wrong.proto:4:1: Expected ";".\nerror: 1 error in the protos\n'


def test_every_error_is_shown_and_counted_but_no_warning(sdk: Sdk) -> None:
    put({"protos/a.proto": message("a", "", "int32 a = 1; int32 b = 1;").removeprefix('syntax = "proto3";')})
    assert outcome(sdk("protos", "--out", "gen")) == (
        1,
        "",
        "protos/a.proto: warning: it is read as proto2, because it has neither syntax nor edition; add "
        '`syntax = "proto2";`\n'
        'protos/a.proto:3:13: Expected "required", "optional", or "repeated".\n'
        'protos/a.proto:3:26: Expected "required", "optional", or "repeated".\n'
        "error: 2 errors in the protos\n",
    )


def test_a_warning_is_shown_once(sdk: Sdk) -> None:
    # Each plugin loads the file, and logs it again.
    put({"protos/a.proto": 'syntax = "proto2";\nmessage A { optional int32 self = 1; optional int32 self_ = 2; }\n'})
    said = (
        'protos/a.proto:2:53: warning: The default JSON name of field "self_" ("self") conflicts with the default JSON '
        'name of field "self".\n'
    )
    assert outcome(sdk("protos", "--out", "gen"))[::2] == (0, said)


def test_a_missing_import_names_the_folders_that_were_tried(sdk: Sdk) -> None:
    put({"protos/a.proto": message("a", 'import "base/base.proto";\n', "base.Base b = 1;"), "more/x.proto": PROTO})
    assert outcome(sdk("protos", "more", "-I", "deps/", "--out", "gen")) == (2, "", "error: deps does not exist\n")
    Path("deps").mkdir()
    assert outcome(sdk("protos", "more", "-I", "deps/", "--out", "gen")) == (
        1,
        "",
        'protos/a.proto:3:1: Import "base/base.proto" was not found in protos, more, deps; -I adds a folder\n'
        'protos/a.proto:4:13: "base.Base" is not defined.\n'
        "error: 2 errors in the protos\n",
    )


def test_an_error_in_an_import_is_not_a_missing_import(sdk: Sdk) -> None:
    put({"protos/a.proto": message("a", 'import "b.proto";\n'), "deps/b.proto": 'syntax = "proto9";\n'})
    assert outcome(sdk("protos", "-I", "deps", "--out", "gen")) == (
        1,
        "",
        'deps/b.proto:1:10: Unrecognized syntax identifier "proto9".  This parser only recognizes "proto2" and '
        '"proto3".\n'
        'protos/a.proto:3:1: Import "b.proto" was not found or had errors.\n'
        "error: 2 errors in the protos\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing", "--out", "gen"], "missing does not exist"),
        (["empty", "--out", "gen"], "no .proto file found in empty"),
        (["empty", "also", "--out", "gen"], "no .proto file found in empty, also"),
        (["note.txt", "--out", "gen"], "note.txt is not a .proto file"),
        (["protos", "--exclude", "*", "--out", "gen"], "--exclude leaves out every .proto file in protos"),
        (["protos", "-I", "missing", "--out", "gen"], "missing does not exist"),
        (["protos", "-I", "note.txt", "--out", "gen"], "-I note.txt is not a folder"),
        (["protos", "--out", "note.txt"], "--out note.txt is not a folder"),
        (["protos", "--out", "note.txt/gen"], "can't write to note.txt/gen: note.txt is not a folder"),
        (
            ["protos", "more", "--out", "gen"],
            "protos/greet.proto and more/greet.proto are both greet.proto to protos that import them; exclude one, or "
            "give -I with a folder above both",
        ),
        (["protos", "--check", "--watch", "--out", "gen"], "--check and --watch are mutually exclusive"),
        (["protos"], "no --out DIR given, and [tool.sdk.codegen] of pyproject.toml has no 'out'"),
        (["--out", "gen"], "no PROTOS given, and [tool.sdk.codegen] of pyproject.toml has no 'protos'"),
        (["protos", "--out", "gen", "--package", "a..b"], "package 'a..b': '' can't name a Python package"),
    ],
)
def test_wrong_use(sdk: Sdk, arguments: list[str], said: str) -> None:
    put({"empty/x": "", "also/x": "", "note.txt": "", "more/greet.proto": PROTO})
    assert outcome(sdk(*arguments)) == (2, "", f"error: {said}\n")
    assert not Path("gen").exists()


def test_two_roots_with_the_same_file_are_fine_below_a_common_one(sdk: Sdk) -> None:
    put({"more/greet.proto": PROTO.replace("greet", "more")})
    assert sdk("protos", "more", "-I", ".", "--out", "gen").returncode == 0
    assert {"protos/greet_sdk.py", "more/greet_sdk.py"} <= content("gen").keys()


@pytest.mark.parametrize("out", ["gen", "gen/deeper/still"])
def test_a_folder_that_cannot_be_written(sdk: Sdk, project: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    (project / "gen").mkdir()
    # Root may write anywhere, so the error of other users is simulated.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "gen")
    done = CliRunner().invoke(codegen, ["protos", "--out", out])
    assert (done.exit_code, done.output) == (2, f"error: can't write to {out}: permission denied\n")
    assert not list((project / "gen").iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["protos", "--out", LONG], f"can't write to {LONG}: file name too long"),
        ([LONG, "--out", "gen"], f"{LONG} does not exist"),
        (["protos", "--out", "gen", "-I", LONG], f"{LONG} does not exist"),
    ],
)
def test_a_name_that_is_too_long(sdk: Sdk, arguments: list[str], said: str) -> None:
    assert outcome(sdk(*arguments)) == (2, "", f"error: {said}\n")


def test_a_proto_that_can_not_be_read(sdk: Sdk) -> None:
    os.symlink("nothing", "protos/lost.proto")
    assert outcome(sdk("protos", "--out", "gen")) == (
        2,
        "",
        "error: can't read protos/lost.proto: no such file or directory\n",
    )


def test_the_lock_of_an_editor_is_no_proto(sdk: Sdk) -> None:
    os.symlink("me@here.1234", "protos/.#greet.proto")
    assert sdk("protos", "--out", "gen").returncode == 0


def test_a_folder_whose_name_is_not_utf_8(sdk: Sdk) -> None:
    folder = os.fsdecode(b"protos\xff")
    os.rename("protos", folder)
    assert CliRunner().invoke(codegen, [folder, "--out", "gen"]).exit_code == 0


def test_a_disk_that_is_full(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk("protos", "--out", "gen")
    before = content("gen")
    put({"protos/greet.proto": PROTO + "message New {}\n"})
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "greet_sdk.py":
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    done = CliRunner().invoke(codegen, ["protos", "--out", "gen"])
    assert (done.exit_code, done.output) == (2, "error: can't write to gen: no space left on device\n")
    assert content("gen") == before


def test_a_file_that_no_generator_wrote_is_not_overwritten(sdk: Sdk) -> None:
    put({"gen/greet_sdk.py": "mine = 1\n", "gen/greet_pb2.py": "mine = 1\n"})
    assert outcome(sdk("protos", "--out", "gen")) == (
        2,
        "",
        "error: not generated, and would be overwritten: gen/greet_pb2.py, gen/greet_sdk.py; move away what is yours "
        "or give another --out\n",
    )
    assert sorted(content("gen")) == ["greet_pb2.py", "greet_sdk.py"]
    # Earlier output of protoc is overwritten, even if another tool ran it.
    put({"gen/greet_sdk.py": "# Generated by `sdk codegen` long ago\n", "gen/greet_pb2.py": ""})
    assert sdk("protos", "--out", "gen").returncode == 0


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n{}", "[]", '{"format": 1}', '{"format": 1, "protos": []}'])
def test_a_damaged_manifest(sdk: Sdk, text: str) -> None:
    put({"gen/.sdk-codegen.json": text})
    assert outcome(sdk("protos", "--out", "gen")) == (
        2,
        "",
        "error: gen/.sdk-codegen.json is damaged (a merge conflict?); take either side of the conflict or delete the "
        "file, then generate again\n",
    )


def test_a_manifest_from_the_future(sdk: Sdk) -> None:
    put({"gen/.sdk-codegen.json": '{"format": 3}'})
    assert outcome(sdk("protos", "--out", "gen")) == (
        2,
        "",
        "error: gen/.sdk-codegen.json was written by a newer version of sdk codegen; install that one\n",
    )


@pytest.mark.parametrize("in_batches", [False, True])
def test_an_error_of_the_plugin_reads_like_one_of_protoc(
    project: Path, in_batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put({"protos/a.proto": "package a; message M { optional float f = 1 [default = 1e-45]; }"})
    if in_batches:
        monkeypatch.setattr("codegen.compile.batches", lambda sources: [[source] for source in sources])
    done = CliRunner().invoke(codegen, ["protos", "--out", "gen"])
    assert (done.exit_code, done.output) == (
        1,
        "protos/a.proto: warning: it is read as proto2, because it has neither syntax nor edition; add "
        '`syntax = "proto2";`\n'
        "protos/a.proto: a.M.f can't be imported: protobuf refuses the default 1.40129846e-45, which is closer to 0 "
        "than 1.17549435e-38, the smallest normal number of its type; write 0 or a larger one\n"
        "error: 1 error in the protos\n",
    )
    assert not Path("gen").exists()


def test_without_the_codegen_extra(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = CliRunner().invoke(codegen, ["protos", "--out", "gen"])
    assert (done.exit_code, done.output) == (
        2,
        "error: grpcio-tools, jinja2, mypy-protobuf not installed: pip install 'ray-grpc-sdk[codegen]'\n",
    )


def test_the_files_are_those_that_the_tests_name(sdk: Sdk) -> None:
    sdk("protos", "--out", "gen")
    assert sorted(content("gen")) == FILES

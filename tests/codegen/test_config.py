"""Options in ``pyproject.toml``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codegen import config
from codegen.config import Config
from codegen.errors import CodegenError
from tests.support.project import Sdk, content, message, outcome, put

ALL = """
[project]
name = "myapp"
[tool.sdk.codegen]
protos = ["protos", "more"]
proto-path = ["deps"]
exclude = ["*_test.proto"]
out = "src/gen"
package = "myapp.gen"
"""


def test_every_option_can_be_in_the_file_and_paths_are_relative_to_it(project: Path) -> None:
    put({"pyproject.toml": ALL, "sub/sub/x": ""})
    assert config.load(Path("sub/sub")) == Config(
        file=Path("../../pyproject.toml"),
        protos=(Path("../../protos"), Path("../../more")),
        proto_path=(Path("../../deps"),),
        exclude=("*_test.proto",),
        out=Path("../../src/gen"),
        package="myapp.gen",
    )


@pytest.mark.parametrize("nearer", ["", "[tool.other]\n", '[project]\nname = "x"\n'])
def test_a_file_without_the_table_is_skipped(project: Path, nearer: str) -> None:
    put({"pyproject.toml": ALL, "sub/pyproject.toml": nearer})
    assert config.load(Path("sub")).file == Path("../pyproject.toml")


def test_the_nearest_table_counts(project: Path) -> None:
    put({"pyproject.toml": ALL, "sub/pyproject.toml": "[tool.sdk.codegen]\n"})
    assert config.load(Path("sub")) == Config(file=Path("pyproject.toml"))
    assert config.load(Path()).package == "myapp.gen"


def test_plain_sdk_codegen_works_from_any_folder_of_the_project(sdk: Sdk) -> None:
    put({"pyproject.toml": '[tool.sdk.codegen]\nprotos = ["protos"]\nout = "gen"\nexclude = ["b.proto"]\n'})
    put({"protos/b.proto": "not a proto", "sub/x": ""})
    assert outcome(sdk()) == (0, "gen: 5 files from 1 proto: 5 written, 0 up to date\n", "")
    os.chdir("sub")
    assert outcome(sdk("--check")) == (0, "gen: 5 files from 1 proto, all up to date\n", "")
    Path("../gen/greet_pb2.py").unlink()
    assert outcome(sdk("--check")) == (
        1,
        "",
        "gen/greet_pb2.py is missing\nerror: gen is not up to date; run: sdk codegen\n",
    )


def test_the_command_line_wins_one_option_at_a_time(sdk: Sdk) -> None:
    put({"pyproject.toml": '[tool.sdk.codegen]\nprotos = ["protos"]\nout = "gen"\nexclude = ["greet.proto"]\n'})
    put({"more/a.proto": message("a"), "more/greet.proto": "not a proto"})
    assert sdk("more").stdout == "gen: 4 files from 1 proto: 4 written, 0 up to date\n"
    assert sdk("--out", "other", "--exclude", "nothing").stdout.startswith("other: 5 files from 1 proto")
    assert sorted({path.partition("_pb2")[0] for path in content("gen")}) == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[tool.sdk.codegen]\nouts = 1\n",
            "pyproject.toml: unknown key 'outs' in [tool.sdk.codegen]; known are protos, proto-path, exclude, out, "
            "package",
        ),
        (
            "[tool.sdk.codegen]\nprotos = 'a'\n",
            "pyproject.toml: 'protos' in [tool.sdk.codegen] must be a list of strings, not 'a'",
        ),
        (
            "[tool.sdk.codegen]\nexclude = ['a', 1]\nout = []\n",
            "pyproject.toml: 'exclude' in [tool.sdk.codegen] must be a list of strings, not ['a', 1]\n"
            "pyproject.toml: 'out' in [tool.sdk.codegen] must be a string, not []",
        ),
        ("[tool.sdk]\ncodegen = 1\n", "pyproject.toml: tool.sdk.codegen must be a table"),
        ("[tool\n", "pyproject.toml is not TOML: Expected ']' at the end of a table declaration (at line 1, column 6)"),
    ],
)
def test_an_error_names_the_file_and_the_key(sdk: Sdk, text: str, said: str) -> None:
    put({"pyproject.toml": text})
    assert outcome(sdk("protos", "--out", "gen")) == (2, "", f"error: {said}\n")
    put({"sub/x": ""})
    with pytest.raises(CodegenError) as caught:
        config.load(Path("sub"))
    assert str(caught.value) == "\n".join(f"../{line}" for line in said.split("\n"))

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from codegen import relocate
from codegen.errors import CodegenError
from tests.support.type_checkers import mypy

# mypy-protobuf ignores errors that some versions of mypy do not report.
UNUSED_IGNORES = "# mypy: warn-unused-ignores=False\n"

AWKWARD = {
    "plain.proto": 'syntax = "proto3"; package plain; message P { int32 a = 1; } service PS { rpc Go(P) returns (P); }',
    "acme/v1/common.proto": """
        syntax = "proto3"; package acme.v1;
        import "plain.proto";
        message Common { plain.P p = 1; message Inner {} }
    """,
    "lambda/kw.proto": """
        syntax = "proto2"; package kw;
        option py_generic_services = true;
        import "plain.proto";
        message K { optional plain.P p = 1; extensions 100 to 200; }
        extend K { optional plain.P more = 101; }
        service KS { rpc Go(K) returns (plain.P); }
    """,
    "a-b/c.d.proto": """
        syntax = "proto3"; package ab;
        import "acme/v1/common.proto";
        import "lambda/kw.proto";
        message D { acme.v1.Common p = 1; kw.K k = 2; }
        service DS { rpc Go(D) returns (stream kw.K); }
    """,
    "top.proto": """
        // A comment that reads
        //
        //import plain_pb2 as plain__pb2
        //from acme.v1 import common_pb2
        syntax = "proto3"; package top;
        import public "acme/v1/common.proto";
        import public "lambda/kw.proto";
        import "google/protobuf/empty.proto";
        // import plain_pb2 as plain__pb2
        message T { acme.v1.Common c = 1; }
        service S { rpc Go(acme.v1.Common) returns (T); rpc No(google.protobuf.Empty) returns (kw.K); }
    """,
    "3rd/my file.proto": """
        syntax = "proto3"; package third;
        import "top.proto";
        message U { acme.v1.Common p = 1; kw.K k = 2; }
        service Us { rpc Go(U) returns (top.T); }
    """,
    "2fa.proto": """
        syntax = "proto3"; package fa;
        import "3rd/my file.proto";
        message F { third.U u = 1; }
        service Fs { rpc Go(third.U) returns (F); }
    """,
}


def generate(folder: Path, protos: Mapping[str, str]) -> dict[str, str]:
    """Return the output of the plugins of protoc and mypy-protobuf, without ours."""
    source, out = folder / "source", folder / "out"
    put(source, protos)
    out.mkdir()
    binaries = Path(sys.executable).parent
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={source}"),
        *(f"--plugin={binaries / plugin}" for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
        *(f"--{name}_out={out}" for name in ("python", "grpc_python")),
        *(f"--{name}_out=quiet:{out}" for name in ("mypy", "mypy_grpc")),
    ]
    subprocess.run([*command, *protos], check=True, capture_output=True)
    return {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.py*")}


def put(folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def run(code: str, *roots: Path) -> str:
    # In a separate interpreter: generated modules are added to the process-wide descriptor pool.
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, env={"PYTHONPATH": os.pathsep.join(map(str, roots))}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return generate(tmp_path_factory.mktemp("tree"), AWKWARD)


MODULES = ("plain", "acme.v1.common", "lambda_.kw", "a_b.c.d", "top", "_3rd.my_file", "_2fa")
IMPORT_ALL = """
import {modules}
from {prefix}_2fa_pb2 import F
from {prefix}lambda_.kw_pb2 import K, KS
from {prefix}top_pb2 import Common, K as K_of_top
import pickle
assert K is K_of_top and KS and F().u.p.DESCRIPTOR is Common.DESCRIPTOR
inner = pickle.loads(pickle.dumps(Common.Inner()))
assert type(inner) is Common.Inner
print(Common.Inner.__module__)
"""


@pytest.mark.parametrize(("package", "prefix"), [("", ""), ("myapp.gen", "myapp.gen.")])
def test_every_module_imports_whatever_its_proto_is_called(
    tmp_path: Path, tree: dict[str, str], package: str, prefix: str
) -> None:
    out = tmp_path / package.replace(".", "/")
    put(out, relocate.relocate(tree, package))
    names = ", ".join(f"{prefix}{module}_pb2{suffix}" for module in MODULES for suffix in ("", "_grpc"))
    assert run(IMPORT_ALL.format(modules=names, prefix=prefix), tmp_path) == f"{prefix}acme.v1.common_pb2"
    assert compileall.compile_dir(out, quiet=1)


def test_generated_code_does_not_contain_the_name_of_the_package(tree: dict[str, str]) -> None:
    assert relocate.relocate(tree, "myapp.gen") == relocate.relocate(tree, "elsewhere")


def test_the_type_checkers_understand_every_stub(tmp_path: Path, tree: dict[str, str]) -> None:
    # One run of each for both cases: a folder on sys.path, with a package in it.
    for folder, package in ((tmp_path, ""), (tmp_path / "myapp" / "gen", "myapp.gen")):
        made = relocate.relocate(tree, package)
        put(folder, {path: UNUSED_IGNORES + text if path.endswith(".pyi") else text for path, text in made.items()})
    (tmp_path / "use.py").write_text(
        "from _2fa_pb2 import F\nfrom myapp.gen._2fa_pb2 import F as G\nfrom myapp.gen.top_pb2_grpc import SStub\n"
        "from typing_extensions import assert_type\nimport lambda_.kw_pb2, myapp.gen.lambda_.kw_pb2\n"
        "assert_type(F().u.k, lambda_.kw_pb2.K)\nassert_type(G().u.k, myapp.gen.lambda_.kw_pb2.K)\nprint(SStub)\n"
    )
    files = [*tmp_path.rglob("*.pyi"), tmp_path / "use.py"]
    by_mypy = mypy(files, [tmp_path], "--explicit-package-bases", cwd=tmp_path)
    # For mypy-protobuf, the DESCRIPTOR of every message is a Descriptor; protobuf's own stub is more precise.
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"include": ["**/*.pyi", "use.py"], "reportIncompatibleVariableOverride": False})
    )
    pyright = [sys.executable, "-m", "pyright", f"--pythonpath={sys.executable}"]
    by_pyright = subprocess.run(pyright, cwd=tmp_path, capture_output=True, text=True, check=False)
    for done in (by_mypy, by_pyright):
        assert done.returncode == 0, done.stdout + done.stderr


def test_trees_that_share_a_proto_live_in_one_process(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        own = f'syntax = "proto3"; package {name}; import "plain.proto"; message M {{ plain.P p = 1; }}'
        made = generate(tmp_path / name, {"plain.proto": AWKWARD["plain.proto"], f"{name}.proto": own})
        put(
            tmp_path / "out" / ("" if name == "three" else name),
            relocate.relocate(made, "" if name == "three" else name),
        )
    code = """
import pickle
from one.one_pb2 import M as One
from two.two_pb2 import M as Two
from three_pb2 import M as Three
import one.plain_pb2, two.plain_pb2, plain_pb2
assert one.plain_pb2.P is two.plain_pb2.P is plain_pb2.P
p = pickle.loads(pickle.dumps(two.plain_pb2.P(a=7)))
print(One(p=p).p.a, Two(p=p).p.a, Three(p=p).p.a)
"""
    assert run(code, tmp_path / "out") == "7 7 7"


def test_text_that_reads_like_an_import_is_left_alone() -> None:
    tree = {
        "a_pb2.py": "",
        "b_pb2.pyi": '"""\nimport a_pb2 as _a_pb2\n"""\n# import a_pb2 as _a_pb2\nX = "\\"\\\nimport a_pb2\\\n"\n'
        "import a_pb2\n",
    }
    text = relocate.relocate(tree, "p")["b_pb2.pyi"]
    assert text == tree["b_pb2.pyi"].removesuffix("import a_pb2\n") + "from . import a_pb2\n"


def test_imports_of_other_modules_are_not_changed() -> None:
    text = """from google.protobuf import empty_pb2 as google_dot_protobuf_dot_empty__pb2
import other_pb2 as other__pb2
import importlib
class_dot_other__pb2 = importlib.import_module('class.other_pb2')
from other_pb2 import *
try:
  public__pb2 = other__pb2.public__pb2
except AttributeError:
  public__pb2 = other__pb2.public_pb2
"""
    assert relocate.relocate({"a_pb2.py": text}, "p")["a_pb2.py"] == text


def test_files_that_work_are_not_changed() -> None:
    tree = {"a/x_pb2.py": "import b_pb2 as b__pb2\n", "b_pb2.py": "", "a/x_sdk.py": "import b_pb2\n"}
    assert relocate.relocate(tree) == tree


def test_modules_that_protobuf_includes_are_left_out() -> None:
    tree = {
        "google/protobuf/any_pb2.py": "",
        "google/protobuf/any_pb2.pyi": "",
        "google/protobuf/go_features_pb2.py": "",
        "x_pb2.py": "from google.protobuf import any_pb2 as google_dot_protobuf_dot_any__pb2\n"
        "from google.protobuf import go_features_pb2 as google_dot_protobuf_dot_go__features__pb2\n",
    }
    assert relocate.relocate(tree).keys() == {"google/protobuf/go_features_pb2.py", "x_pb2.py"}
    assert relocate.relocate(tree, "p")["x_pb2.py"].splitlines() == [
        "from google.protobuf import any_pb2 as google_dot_protobuf_dot_any__pb2",
        "from .google.protobuf import go_features_pb2 as google_dot_protobuf_dot_go__features__pb2",
    ]


def test_each_folder_of_a_package_is_a_package() -> None:
    made = relocate.relocate({"a/b/x_pb2.py": "", "a/b/x_sdk.py": "from . import x_pb2\n"}, "p")
    assert sorted(made) == ["__init__.py", "a/__init__.py", "a/b/__init__.py", "a/b/x_pb2.py", "a/b/x_sdk.py"]
    assert made["__init__.py"].startswith(relocate.HEADER)


def test_a_plugin_whose_imports_cannot_be_rewritten_is_named() -> None:
    with pytest.raises(CodegenError, match="install mypy-protobuf 5"):
        relocate.relocate({"a/x_pb2.pyi": "", "b_pb2.pyi": "import a.x_pb2\n"}, "p")


@pytest.mark.parametrize("package", ["my-app", "a..b", "a.class", "1a", "a.", " a"])
def test_a_package_that_python_cannot_import_is_rejected(package: str) -> None:
    with pytest.raises(CodegenError, match="can't name a Python package"):
        relocate.relocate({}, package)


@pytest.mark.parametrize(
    ("stems", "expected_names"),
    [
        (["a.b", "a.c_d"], ["a.b", "a.c_d"]),
        (["class.x", "class.y.z", "a.None.x"], ["class_.x", "class_.y.z", "a.None_.x"]),
        (["lambda", "lambda.x"], ["lambda", "lambda_.x"]),  # a file has a suffix, a folder none
        (["in.x", "in_.x", "in_.y"], ["in__.x", "in_.x", "in_.y"]),
        (
            ["2fa", "_2fa", "3rd.x", "my file", "my_file", "my+file"],
            ["_2fa_", "_2fa", "_3rd.x", "my_file_", "my_file", "my_file__"],
        ),
        (["match.x", "type.x", "größe.x"], ["match.x", "type.x", "größe.x"]),
    ],
)
def test_names_that_import_statements_accept(stems: list[str], expected_names: list[str]) -> None:
    expected, names = dict(zip(stems, expected_names, strict=True)), relocate.importable_names(stems)
    assert names.keys() == expected.keys()
    assert set(names.values()) == set(expected_names)
    assert names == relocate.importable_names(stems[::-1])
    assert {s: h for s, h in names.items() if s == h} == {s: h for s, h in expected.items() if s == h}

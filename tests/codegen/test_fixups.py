from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codegen.fixups import fix_up

PROTO = '''
syntax = "proto3";
package fixups;
import public "base.proto";
message None { message class { } }
message __Hidden { }
message Base { }
// A service \\N{nobody} """knows""".
//
// """
// \\"
service import {
  // A backslash \\x
  rpc class(None) returns (None.class);
  rpc class_(None) returns (stream __Hidden);
  // """
  rpc __init__(stream None) returns (fixups.Base);
  // Missing associated documentation comment in .proto file.
  rpc staticmethod(None) returns (base.Base);
  rpc bind(None) returns (None);
}
service Plain { rpc class(None) returns (None); }
service Hidden {
  rpc _grpc(Base) returns (Base);
  rpc _aio(Base) returns (Base);
  rpc __typing(Base) returns (stream Base);
  rpc __old(stream Base) returns (Base) { option deprecated = true; }
  rpc __old___(Base) returns (Base);
}
message Fields { Base __old = 1; }
'''
BASE = """
syntax = "proto3";
package base;
message Base { }
message lambda { }
enum in { NOTHING = 0; }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    (source / "fixups.proto").write_text(PROTO)
    (source / "base.proto").write_text(BASE)
    plugins = [f"--plugin={Path(sys.executable).with_name(f'protoc-gen-{name}')}" for name in ("mypy", "mypy_grpc")]
    outs = [f"--{name}_out={out}" for name in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{source}", *plugins, *outs, "fixups.proto", "base.proto"]
    subprocess.run(command, check=True, capture_output=True)
    return {path.name: path.read_text() for path in out.iterdir()}


def test_grpcs_module_has_the_names_of_our_bases(made: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SyntaxError):
        ast.parse(made["fixups_pb2_grpc.py"])
    for name, text in fix_up(made).items():
        (tmp_path / name).write_text(text)
    code = """
import inspect, grpc, fixups_pb2_grpc as made
class Import(made.importServicer):
    pass
handlers = {}
class Server:
    def add_generic_rpc_handlers(self, handlers): pass
    def add_registered_method_handlers(self, service, methods): handlers.update(methods)
made.add_importServicer_to_server(Import(), Server())
assert set(handlers) == {"class", "class_", "__init__", "staticmethod", "bind"}
with grpc.insecure_channel("localhost:1") as channel:
    print(*vars(made.importStub(channel)))
    print(*vars(made.PlainStub(channel)))
for what in (made.importServicer, Import.__init___, Import.class__):
    print(repr(inspect.getdoc(what)))
made.import_.staticmethod_
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    stubs, plain, *docs = done.stdout.splitlines()
    assert (stubs, plain) == ("class__ class_ __init___ staticmethod_ bind", "class_")
    assert [ast.literal_eval(doc).rstrip() for doc in docs] == [
        'A service \\N{nobody} """knows""".\n\n"""\n\\"',
        '"""',
        "A backslash \\x",
    ]


def test_older_grpcio_tools_write_a_base_class(made: dict[str, str]) -> None:
    def older(text: str) -> str:
        return re.sub(r"^(class \w+):$", r"\1(object):", text, flags=re.MULTILINE)

    name = "fixups_pb2_grpc.py"
    older_module = older(made[name])
    assert "class import(object):" in older_module
    assert fix_up({**made, name: older_module})[name] == older(fix_up(made)[name])


def test_stubs_find_every_message(made: dict[str, str]) -> None:
    with pytest.raises(SyntaxError):
        ast.parse(made["fixups_pb2.pyi"])
    stub = fix_up(made)["fixups_pb2.pyi"]
    ast.parse(stub)
    lines = [line for line in stub.splitlines() if line.startswith("from base_pb2 ")]
    # The proto's own message hides Base.
    assert lines == [
        "from base_pb2 import NOTHING as NOTHING",
        "from base_pb2 import _r_in as _r_in",
        "from base_pb2 import _r_lambda as _r_lambda",
    ]


def test_stubs_have_the_names_of_our_bases(made: dict[str, str]) -> None:
    stubs = fix_up(made)
    classes = {
        node.name: node for node in ast.parse(stubs["fixups_pb2_grpc.pyi"]).body if isinstance(node, ast.ClassDef)
    }
    expected = {"_grpc", "_aio", "__typing___", "__old____", "__old___"}
    for name in ("HiddenStub", "HiddenAsyncStub", "HiddenServicer"):
        attributes = {node.target.id for node in classes[name].body if isinstance(node, ast.AnnAssign)}
        methods = {node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)}
        assert attributes | methods - {"__new__", "__init__"} == expected
    assert "def __old(self)" in stubs["fixups_pb2.pyi"]  # a field


def test_files_without_problems_are_not_changed(made: dict[str, str]) -> None:
    plain = {name: made[name] for name in ("fixups_pb2.py", "base_pb2.py", "base_pb2_grpc.py", "base_pb2_grpc.pyi")}
    assert fix_up(plain) == plain

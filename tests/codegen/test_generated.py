"""Generated modules at run time, and errors for stale ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from codegen.sync import Options, update
from sdk._proto_files.fingerprint import fingerprint
from tests.support.proto_text import compiled
from tests.support.type_checkers import mypy

HERE = Path(__file__).parent


def test_the_generated_modules_match_the_protos(generated: Path) -> None:
    # In a separate interpreter: generated modules are added to the process-wide descriptor pool.
    subprocess.run([sys.executable, "-W", "error", HERE / "inspect_generated.py", generated], check=True)


def test_a_stale_module_is_rejected(generated: Path, tmp_path: Path) -> None:
    for path in (generated / "user_defined_protos_pb2.py", generated / "user_defined_protos_sdk.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    module = tmp_path / "user_defined_protos_sdk.py"
    text = module.read_text()
    hash_ = text.partition('proto_hash="')[2].partition('"')[0]
    module.write_text(text.replace(hash_, "0" * 64))
    done = subprocess.run(
        [sys.executable, "-c", "import user_defined_protos_sdk"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "StaleCodeError" in done.stderr
    assert "sdk codegen" in done.stderr


FINGERPRINTS = """
import sys, importlib
from sdk._proto_files.fingerprint import fingerprint
for name in sys.argv[1:]:
    print(fingerprint(importlib.import_module(name).DESCRIPTOR.serialized_pb))
"""

OPTIONS = """
syntax = "proto3";
package options;
import "google/protobuf/descriptor.proto";
message Big { string a = 1; int32 b = 2; map<string, int32> m = 3; }
extend google.protobuf.MethodOptions { Big big = 50010; string low = 50001; repeated int32 many = 50005; }
extend google.protobuf.FileOptions { Big file_big = 50010; string file_low = 50001; }
extend google.protobuf.FieldOptions { string gone = 50006 [retention = RETENTION_SOURCE]; }
"""

USES = """
// Custom options in an order that is not that of their numbers.
import "options.proto";
option (options.file_big) = { b: 3 a: "x" m: { key: "k" value: 1 } m: { key: "a" value: 2 } };
option (options.file_low) = "low";
message Hello { LABEL string some_name = 1 [json_name = "other", deprecated = true, (options.gone) = "gone"]; }
service Greeter {
  option deprecated = true;
  // A comment.
  rpc SayHello(Hello) returns (Hello) {
    option (options.big) = { a: "q" };
    option (options.many) = 3;
    option idempotency_level = IDEMPOTENT;
    option (options.low) = "1";
    option (options.many) = 4;
  }
}
"""


DEFAULTS = r"""
syntax = "proto2";
package defaults;
message Values {
  optional float tenth = 1 [default = 0.1];
  optional float million = 2 [default = 1e6];
  optional float exact = 3 [default = 0.5];
  optional float smallest_normal = 4 [default = 1.17549435e-38];
  optional float infinite = 5 [default = -inf];
  optional float not_a_number = 6 [default = nan];
  optional float negative_zero = 7 [default = -0.0];
  optional double small = 11 [default = 1e-7];
  optional double pi = 12 [default = 3.14159];
  optional double largest = 13 [default = 1.7976931348623157e308];
  optional double nested = 14 [default = 6.4];
  optional bytes escaped = 21 [default = "\001\177\377\"\'\\ab?\n\t"];
  optional string text = 22 [default = "\001\"\'\\ab\n é"];
  optional int64 lowest = 23 [default = -9223372036854775808];
  optional Colour colour = 24 [default = RED];
  enum Colour { NONE = 0; RED = 1; }
  extensions 100 to 200;
  extend Values { optional float inner_extension = 100 [default = 0.3]; }
}
extend Values { optional double outer_extension = 101 [default = 0.3]; }
service Holder { rpc Hold(Values) returns (Values); }
"""


def fingerprint_of_loaded(module: str, folder: Path, implementation: str) -> str:
    """Return the fingerprint of a loaded ``_pb2`` module, under one of protobuf's implementations."""
    loaded = subprocess.run(
        [sys.executable, "-c", FINGERPRINTS, module],
        cwd=folder,
        env={"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
        capture_output=True,
        text=True,
        check=True,
    )
    return loaded.stdout.strip()


@pytest.mark.parametrize(
    ("syntax", "label"),
    [
        ('syntax = "proto2";', "optional"),
        ('syntax = "proto3";', "optional"),
        ('edition = "2023"; option features.field_presence = IMPLICIT;', ""),
        ('edition = "2024"; option features.enforce_naming_style = STYLE_LEGACY;', ""),
    ],
)
@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_the_plugin_and_the_loaded_module_agree_on_the_fingerprint(
    tmp_path: Path, syntax: str, label: str, implementation: str
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "options.proto").write_text(OPTIONS)
    (source / "uses.proto").write_text(syntax + "\npackage uses;" + USES.replace("LABEL", label))
    update(Options((source,), out))
    loaded = fingerprint_of_loaded("uses_pb2", out, implementation)
    assert f'proto_hash="{loaded}"' in (out / "uses_sdk.py").read_text()


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_default_values_have_one_fingerprint_however_protobuf_writes_them(tmp_path: Path, implementation: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "defaults.proto").write_text(DEFAULTS)
    update(Options((source,), out))
    loaded = fingerprint_of_loaded("defaults_pb2", out, implementation)
    assert f'proto_hash="{loaded}"' in (out / "defaults_sdk.py").read_text()


def test_another_default_value_is_another_fingerprint() -> None:
    def of(default: str) -> str:
        text = f"syntax = 'proto2'; message A {{ optional float x = 1 [default = {default}]; }}"
        return fingerprint(compiled(text).file[0].SerializeToString())

    assert of("0.1") == of("0.10") != of("0.2")


BESIDE = """
syntax = "proto3";
package beside;
import "lambda/shop.proto";
message None {}
service Beside { rpc Go(None) returns (stream python.lambda.Shop); }
"""
BESIDE_USE = """
import importlib
from typing import Any
from beside_sdk import None_, BesideBase, BesideSyncClient, Shop
shops = importlib.import_module("lambda.shop_sdk")
assert shops.SHOPS["Open"].request is Shop
class Implementation(BesideBase):
    def Go(self, request: None_) -> Any:
        return iter([Shop(name="one")])
assert [shop.name for shop in Implementation().Go(None_())] == ["one"]
with BesideSyncClient("localhost:1") as client:
    assert client.Go.method.request is None_
"""


def test_the_plugin_alone_finds_modules_that_no_import_statement_can_name(tmp_path: Path) -> None:
    # protoc's own modules do not use a statement either if the folder is a keyword.
    for name, text in (("beside.proto", BESIDE), ("beside_use.py", BESIDE_USE)):
        (tmp_path / name).write_text(text)
    plugin, shops = tmp_path / "protoc-gen-sdk", HERE / "cases" / "modules" / "protos"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from codegen.plugin import main; main()"\n')
    plugin.chmod(0o700)
    binaries = Path(sys.executable).parent
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"-I{shops}"),
        *(f"--plugin={plugin}", f"--plugin={binaries / 'protoc-gen-mypy'}"),
        *(f"--python_out={tmp_path}", f"--mypy_out=quiet:{tmp_path}", f"--sdk_out={tmp_path}"),
    ]
    subprocess.run([*command, "beside.proto", "lambda/shop.proto"], check=True)
    subprocess.run([sys.executable, "-W", "error", "beside_use.py"], cwd=tmp_path, check=True)
    done = mypy([tmp_path / "beside_use.py"], [tmp_path], cwd=tmp_path)
    assert done.returncode == 0, done.stdout

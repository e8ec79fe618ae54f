"""Rules that can't work: found by `sdk codegen`, by the decorator and by `sdk check`, before any call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.compile import Protoc
from codegen.errors import CodegenError
from codegen.sources import Source
from codegen.sync import Options, check, update
from codegen.validate_proto import VALIDATE_PROTO, descriptor
from tests.support.command_server import command_server
from tests.support.small_ray import PYTHON_START

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = 'syntax = "proto3";\npackage bad;\nimport "buf/validate/validate.proto";\n'
SERVICE = "service Bad { rpc Do(Top) returns (Other); }\n"
GOOD = HEAD + SERVICE + "message Top { string a = 1 [(buf.validate.field).string.min_len = 1]; }\nmessage Other {}\n"
# One rule a line, and what is wrong with it.
RULES = {
    'message M { string a = 1 [(buf.validate.field).cel = {id: "x", expression: "this.size("}]; }': "x M.a ERROR:",
    'message M { string a = 1 [(buf.validate.field).cel = {id: "x", expression: "no(this)"}]; }': "x M.a No overloads",
    'message M { string a = 1 [(buf.validate.field).cel = {id: "x", expression: "this > 3"}]; }': "x M.a No matching",
    'message M { string a = 1 [(buf.validate.field).cel = {id: "x", expression: "that"}]; }': "x M.a No value with",
    'message M { string a = 1 [(buf.validate.field).cel = {id: "x", expression: "1"}]; }': "x M.a expression x outputs",
    'message M { option (buf.validate.message).cel = {id: "y", expression: "this.b"}; }': "y M no_such_field",
    'message M { int32 a = 1 [(buf.validate.field).cel = {id: "x", expression: "this.b < 3"}]; }': "x M.a Applying",
    'message M { int32 a = 1 [(buf.validate.field).cel = {id: "x", expression: "this[0] < 3"}]; }': "x M.a Invalid",
    # The first rule depends on the data: it is right.
    'message M { int32 a = 1 [(buf.validate.field).cel = {id: "x", expression: "3 / this > 1"}];'
    ' int32 b = 2 [(buf.validate.field).cel = {id: "y", expression: "that"}]; }': "y M.b No value with",
    'message M { option (buf.validate.message).oneof = {fields: ["b"]}; }': "oneof M field b not found",
    "message M { int32 a = 1 [(buf.validate.field).string.len = 1]; }": "string.len M.a expected rule",
    'message M { string a = 1 [(buf.validate.field).string.pattern = "(("]; }': "string.pattern M.a missing )",
    'message M { repeated string a = 1 [(buf.validate.field).repeated.items.string.pattern = "(("]; }': (
        "repeated.items.string.pattern M.a missing )"
    ),
    'message M { map<string, string> a = 1 [(buf.validate.field).map.keys.string.pattern = "(("]; }': (
        "map.keys.string.pattern M.a missing )"
    ),
    'message M { message N { oneof c { string a = 1 [(buf.validate.field).string.pattern = "(("]; } } }': (
        "string.pattern M.N.a missing )"
    ),
    'message M { optional M m = 1; optional string a = 2 [(buf.validate.field).string.pattern = "(("]; }': (
        "string.pattern M.a missing )"
    ),
}


def run_python(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder from which it can import."""
    environment = {**os.environ, "PYTHONPATH": str(PYTHON_START)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command_server().run([*arguments], tmp_path, os.environ)

    return run


@pytest.mark.parametrize("text", RULES)
def test_codegen_names_file_line_and_rule(tmp_path: Path, text: str) -> None:
    proto = tmp_path / "bad.proto"
    proto.write_text(f"{HEAD}{text}\n")
    with pytest.raises(CodegenError, match=r"1 validation rule in the protos can't work") as raised:
        update(Options((proto,), tmp_path / "gen"))
    rule, element, reason = RULES[text].split(" ", 2)
    (line,) = raised.value.details
    assert line.startswith(f"{proto}:4: the rule `{rule}` of bad.{element} does not work: {reason}")
    assert not (tmp_path / "gen" / "bad_pb2.py").exists()


def test_every_rule_has_its_line(tmp_path: Path) -> None:
    proto = tmp_path / "bad.proto"
    proto.write_text(f"{HEAD}message M {{\n  string a = 1 [\n    (buf.validate.field).string.min_len = 1,\n"
                     '    (buf.validate.field).string.pattern = "((",\n'
                     '    (buf.validate.field).cel = {id: "one", expression: "true"},\n'
                     '    (buf.validate.field).cel = {id: "two", expression: "nope"}\n  ];\n}\n')  # fmt: skip
    with pytest.raises(CodegenError) as raised:
        check(Options((proto,), tmp_path / "gen"))
    assert [line.partition(" does")[0] for line in raised.value.details] == [
        f"{proto}:7: the rule `string.pattern` of bad.M.a",
        f"{proto}:9: the rule `two` of bad.M.a",
    ]


def test_rules_that_depend_on_the_data_are_not_told(tmp_path: Path) -> None:
    proto = tmp_path / "good.proto"
    divides = '[(buf.validate.field).cel = {id: "x", expression: "1 / this > 0"}]'
    proto.write_text(f"{HEAD}message M {{ int32 a = 1 {divides}; repeated M m = 2; }}\n")
    assert update(Options((proto,), tmp_path / "gen")).warnings == ()


def test_the_proto_of_the_rules_is_found(tmp_path: Path) -> None:
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "good.proto").write_text(GOOD)
    options = Options((tmp_path / "protos",), tmp_path / "gen", package="gen")
    assert "buf/validate/validate_pb2.py" in update(options).missing
    assert (tmp_path / "gen" / "buf" / "validate" / "validate_pb2.py").exists()
    assert check(options).is_up_to_date
    again = update(options)
    assert (again.missing, again.stale, again.extra) == ((), (), ())
    program = "from gen.good_pb2 import Top; from sdk._validation.validator import check_request; check_request(Top())"
    done = run_python(program, tmp_path)
    assert "a: must be at least 1 characters" in done.stderr


def test_a_copy_of_the_user_has_precedence(tmp_path: Path) -> None:
    """A small one, as of another version: none of our imports clashes with it."""
    (tmp_path / "protos" / "buf" / "validate").mkdir(parents=True)
    (tmp_path / "protos" / "good.proto").write_text(GOOD)
    (tmp_path / "protos" / "buf" / "validate" / "validate.proto").write_text(
        'syntax = "proto2"; package buf.validate; import "google/protobuf/descriptor.proto";'
        "extend google.protobuf.FieldOptions { optional FieldRules field = 1159; }"
        "message FieldRules { oneof type { StringRules string = 14; } }"
        "message StringRules { optional uint64 min_len = 2; }"
    )
    update(Options((tmp_path / "protos",), tmp_path / "gen", package="gen"))
    assert "UInt64Rules" not in (tmp_path / "gen" / "buf" / "validate" / "validate_pb2.py").read_text()
    program = (
        "from gen.good_sdk import BadBase\nfrom gen.good_pb2 import Top, Other\nimport sdk, sdk.testing\n"
        "from gen.good_sdk import BadSyncClient\n"
        "@sdk.grpc_deployment(validate=True)\nclass Bad(BadBase):\n"
        "    async def Do(self, request: Top) -> Other:\n        return Other()\n"
        "with sdk.testing.serve(Bad.bind()) as server:\n"
        "    client = server.client(BadSyncClient)\n    client.Do(Top(a='x'))\n"
        "    try:\n        client.Do(Top())\n    except Exception as error:\n"
        "        print(error.code().name, error.details(), [each.TypeName() for each in sdk.error_details(error)])"
    )
    done = run_python(program, tmp_path)
    assert done.stdout == (
        "INVALID_ARGUMENT a: must be at least 1 characters ['google.rpc.BadRequest', 'buf.validate.Violations']\n"
    ), done.stderr


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "protovalidate", None)
    descriptor.cache_clear()
    (tmp_path / "good.proto").write_text(GOOD)
    try:
        with pytest.raises(CodegenError) as raised:
            update(Options((tmp_path / "good.proto",), tmp_path / "gen"))
    finally:
        descriptor.cache_clear()
    assert raised.value.details[0].endswith(
        f'Import "buf/validate/validate.proto" was not found in {tmp_path}; -I adds a folder, and '
        "pip install 'ray-grpc-sdk[validate]' brings it"
    )


APP = """\
from bad_pb2 import Other, Top
from bad_sdk import BadBase

from sdk import grpc_deployment


@grpc_deployment{options}
class Bad(BadBase):
    async def Do(self, request: Top) -> Other:
        return Other()
"""
WRONG = HEAD + SERVICE + (
    'message Top {\n  Inner inner = 1;\n  google.protobuf.Any any = 2;\n}\nmessage Inner {\n'
    '  string a = 1 [(buf.validate.field).string.pattern = "(("];\n}\nmessage Other {}\n'
)  # fmt: skip


@pytest.mark.parametrize("options", ["", "(validate=True)"])
def test_check_names_file_line_and_rule(sdk: Run, tmp_path: Path, options: str) -> None:
    wrong = WRONG.replace("package bad;", 'package bad;\nimport "google/protobuf/any.proto";')
    (tmp_path / "bad.proto").write_text(wrong)
    # As other tools generate it: `sdk codegen` refuses the rule.
    sources = [
        Source(tmp_path, "bad.proto", "bad.proto"),
        Source(tmp_path / "none", VALIDATE_PROTO, VALIDATE_PROTO, descriptor()),
    ]
    with Protoc(sources) as protoc:
        for name, data in protoc.generate().items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    (tmp_path / "bad_app.py").write_text(APP.format(options=options))
    done = sdk("check", "bad_app")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "Bad: 1 problem (bad_app.py:8)",
        "  Bad: the rule `string.pattern` of bad.Inner.a does not work: missing ): (( (bad.proto:11) → fix the rule in "
        "the proto [validation-rule]",
    ]
    assert done.stderr == "note: bad.Top.any is a google.protobuf.Any: rules of the message in it are not checked\n"
    (tmp_path / "bad_app.py").write_text(APP.format(options=""))
    manifest = {"bad.proto": {"root": ".", "files": {}}, VALIDATE_PROTO: {"root": ".protovalidate", "files": {}}}
    (tmp_path / ".sdk-codegen.json").write_text(json.dumps({"format": 2, "shared": {}, "protos": manifest}))
    (tmp_path / "bad.proto").write_text(f"{wrong}message {{")
    said = "can't be compared with its generated code: 1 error in the protos: bad.proto:14:"
    assert said in sdk("check", "bad_app").stderr
    (tmp_path / "bad_app.py").write_text(APP.format(options=options))
    if options:
        imported = run_python("import bad_app", tmp_path)
        assert "the rule `string.pattern` of bad.Inner.a does not work: missing ): ((" in imported.stderr

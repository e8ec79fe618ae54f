"""``protoc-gen-sdk`` alone, as protoc and buf run it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import Edition, FileDescriptorSet

from codegen import bundled_plugins, plugin, stubs
from codegen.isolated import isolated
from tests.support.project import PROTO, content, message, put
from tests.support.sdk_command import SDK

if TYPE_CHECKING:
    from subprocess import CompletedProcess

Build = Callable[..., CodeGeneratorRequest]

PLUGIN = SDK.with_name("protoc-gen-sdk")


def protoc(*arguments: str, **environment: str) -> CompletedProcess[str]:
    """Run plain protoc with the installed plugin."""
    return subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"--plugin=protoc-gen-sdk={PLUGIN}", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_declares_what_it_supports(request_for: Build) -> None:
    response = plugin.respond(request_for())
    assert response.supported_features == (
        CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS
    )
    assert (response.minimum_edition, response.maximum_edition) == (Edition.EDITION_PROTO2, Edition.EDITION_2024)
    assert [file.name for file in response.file] == ["greet_sdk.py"]
    assert not response.HasField("error")


KNOWN = "protoc-gen-sdk takes package=…"


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ("fast=1", f"unknown parameter 'fast=1'; {KNOWN}"),
        ("fast", f"unknown parameter 'fast'; {KNOWN}"),
        ("package", f"parameter 'package' has no value; {KNOWN}"),
        ("package=a,fast", f"unknown parameter 'fast'; {KNOWN}"),
        ("package=a,", f"unknown parameter ''; {KNOWN}"),
        (" package=a", f"unknown parameter ' package=a'; {KNOWN}"),
        ("package=a,package=a", "parameter 'package' is given twice"),
        ("package=my-app", "package 'my-app': 'my-app' can't name a Python package"),
        ("package=a..b", "package 'a..b': '' can't name a Python package"),
    ],
)
def test_a_wrong_parameter_is_an_error(request_for: Build, parameter: str, error: str) -> None:
    response = plugin.respond(request_for(parameter=parameter))
    assert response.error == error
    assert not response.file
    assert response.supported_features  # protoc looks at them first


def test_a_bug_is_reported_without_a_traceback(request_for: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen.model.files", lambda *_: 1 / 0)
    response = plugin.respond(request_for())
    assert response.error == (
        "internal error: ZeroDivisionError: division by zero; this is a bug in ray-grpc-sdk, please report it"
    )


SYNTAXES = ['syntax = "proto2";', 'syntax = "proto3";', 'edition = "2023";', 'edition = "2024";']


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_plain_protoc_runs_it_on_every_syntax(project: Path, syntax: str) -> None:
    optional = "" if "edition" in syntax else "optional"
    text = PROTO.replace('syntax = "proto3";', syntax).replace("Hello {}", f"Hello {{ {optional} int32 a = 1; }}")
    put({"protos/greet.proto": text, "gen/x": ""})
    done = protoc("-Iprotos", "--python_out=gen", "--sdk_out=gen", "greet.proto")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    code = "import greet_sdk; print(greet_sdk.GREETER.full_name)"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd="gen", capture_output=True, text=True, check=True
    )
    assert ran.stdout == "greet.Greeter\n"


def test_parameters_before_the_folder_or_in_an_option(project: Path) -> None:
    put(
        {
            "protos/acme/a.proto": PROTO.replace("greet;", 'a;\nimport "greet.proto";').replace(
                "(Hello)", "(greet.Hello)"
            )
        }
    )
    put({"one/x": "", "two/x": "", "three/x": ""})
    for arguments in (["--sdk_out=package=myapp.gen:one"], ["--sdk_out=two", "--sdk_opt=package=myapp.gen"]):
        assert protoc("-Iprotos", *arguments, "greet.proto", "acme/a.proto").stderr == ""
    assert protoc("-Iprotos", "--sdk_out=three", "greet.proto", "acme/a.proto").stderr == ""
    assert content("one") == content("two")
    assert b"\nfrom .. import greet_pb2\n" in content("one")["acme/a_sdk.py"]
    assert b"\nimport greet_pb2\n" in content("three")["acme/a_sdk.py"]


def test_protoc_shows_its_errors_and_writes_nothing(project: Path) -> None:
    put({"gen/x": ""})
    done = protoc("-Iprotos", "--sdk_out=fast:gen", "greet.proto")
    assert (done.returncode, done.stderr) == (1, f"--sdk_out: unknown parameter 'fast'; {KNOWN}\n")
    assert list(content("gen")) == ["x"]


def run_plugin(request: CodeGeneratorRequest, folder: Path, **environment: str) -> bytes:
    done = subprocess.run(
        [PLUGIN],
        input=request.SerializeToString(),
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout


@pytest.fixture
def tree(project: Path) -> CodeGeneratorRequest:
    """A request for many protos that import one another."""
    names = [f"acme/v{number}.proto" for number in range(20)]
    for number, name in enumerate(names):
        text = PROTO.replace("greet;", f"acme.v{number};")
        for other in range(number):
            text = text.replace("message", f'import "acme/v{other}.proto";\nmessage', 1)
            text = text.replace("{ rpc", f"{{ rpc R{other}(acme.v{other}.Hello) returns (Hello); rpc", 1)
        put({f"many/{name}": text})
    done = protoc("-Imany", "--include_imports", "--include_source_info", "--descriptor_set_out=set", *names)
    assert done.returncode == 0, done.stderr
    files = FileDescriptorSet.FromString(Path("set").read_bytes()).file
    return CodeGeneratorRequest(file_to_generate=names, proto_file=files)


def test_it_is_deterministic_to_the_byte(tree: CodeGeneratorRequest, tmp_path: Path) -> None:
    first = run_plugin(tree, tmp_path, PYTHONHASHSEED="0")
    assert len(CodeGeneratorResponse.FromString(first).file) == 20
    for seed in ("1", "2", "random"):
        assert run_plugin(tree, tmp_path, PYTHONHASHSEED=seed) == first


def test_the_order_of_the_files_does_not_matter(tree: CodeGeneratorRequest) -> None:
    whole = {file.name: file.content for file in plugin.respond(tree).file}
    shuffled = list(tree.file_to_generate)
    random.Random(1).shuffle(shuffled)
    request = CodeGeneratorRequest(file_to_generate=shuffled, proto_file=tree.proto_file)
    assert {file.name: file.content for file in plugin.respond(request).file} == whole


def test_it_reads_only_the_request(tree: CodeGeneratorRequest, tmp_path: Path) -> None:
    # Neither the current folder, nor its options, nor the environment.
    put(
        {
            "pyproject.toml": '[tool.sdk.codegen]\npackage = "other"\n',
            "acme/v1.proto": "wrong",
            "many/acme/v1.proto": message("x"),
        }
    )
    (tmp_path / "elsewhere").mkdir()
    here = run_plugin(tree, tmp_path)
    assert run_plugin(tree, tmp_path / "elsewhere", HOME="/nowhere", LANG="C", TZ="Asia/Tokyo") == here


def test_in_one_process_the_plugins_read_fewer_places_and_give_the_same_files(tree: CodeGeneratorRequest) -> None:
    tree.proto_file[0].source_code_info.location[-1].leading_detached_comments.append(" the end")
    tree = isolated(CodeGeneratorRequest).FromString(tree.SerializeToString())
    alone = isolated(CodeGeneratorRequest).FromString(tree.SerializeToString())
    files = [*plugin.respond(alone).file, *stubs.write(alone, pytest.fail)]
    places = sum(len(file.source_code_info.location) for file in tree.proto_file)
    together = bundled_plugins.respond(tree, list(tree.file_to_generate), pytest.fail).file
    assert list(together) == files
    assert sum(len(file.source_code_info.location) for file in tree.proto_file) < places / 2

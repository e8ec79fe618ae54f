from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from codegen.console import show_error
from sdk import __version__, errors
from sdk.cli.errors import ModuleFailedError
from sdk.cli.main import _COMMANDS, LazyGroup, main

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def group_that_raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> LazyGroup:
    @click.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(errors, "fail", fail, raising=False)
    return LazyGroup(name="sdk", lazy={"fail": ("sdk.errors:fail", "Fails.")})


def test_help_lists_every_command_and_loads_none() -> None:
    program = (
        "import sys; sys.argv = ['sdk', '--help']\n"
        "from sdk.cli.main import main\n"
        "try: main()\n"
        "finally: print(*(m for m in ('ray', 'grpc', 'grpc_tools', 'rich', 'sdk.cli.run.command') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    *shown, loaded = done.stdout.splitlines()
    assert (done.returncode, loaded) == (0, "")
    for name, (_, text) in _COMMANDS.items():
        assert any(line.split() == [name, *text.split()] for line in shown)


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_help_has_an_example(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"], terminal_width=120).output
    assert f"sdk {name}" in shown.partition("Example")[2]


@pytest.mark.parametrize(
    "arguments", [["--version"], ["call", "--help"], ["services", "--help"], ["completion", "zsh"]]
)
def test_what_only_tells_loads_nothing_large(arguments: list[str]) -> None:
    program = (
        "import sys; from sdk.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('loaded', *(m for m in ('ray', 'grpc', 'grpc_tools', 'rich') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "loaded")


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(**options: Any) -> str:
        return CliRunner().invoke(main, ["codegen", "none", "--out", "gen"], **options).stderr

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert said(color=True).startswith("\x1b[31m\x1b[1merror:\x1b[0m ")
    assert said().startswith("error: ")
    monkeypatch.setenv("NO_COLOR", "1")
    assert said(color=True).startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "No such command 'chek'. Did you mean `sdk check`?"),
        (["--nothing"], "No such option '--nothing'."),
        (["call"], "Missing argument 'TARGET'."),
        (["status", "more"], "Got unexpected extra argument (more)"),
    ],
)
def test_wrong_use_is_told_in_the_same_words(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments, prog_name="sdk")
    assert (done.exit_code, done.stdout) == (2, "")
    command = "sdk" if arguments[0] not in _COMMANDS else f"sdk {arguments[0]}"
    usage, hint, empty, error = done.stderr.splitlines()
    assert usage.startswith(f"Usage: {command} ")
    assert (hint, empty, error) == (f"Try '{command} --help' for help.", "", f"error: {said}")


def test_no_command_shows_the_help() -> None:
    done = CliRunner().invoke(main, [], prog_name="sdk")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == CliRunner().invoke(main, ["--help"], prog_name="sdk").stdout


def test_help_is_fast(sdk: Run) -> None:
    times = []
    for _ in range(3):
        before = os.times()
        assert sdk("--help").returncode == 0
        after = os.times()
        # Of the processor, not of the clock: others may have the processor meanwhile.
        times.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert min(times) < 0.3


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_loads(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"sdk {name}" in done.output.replace("main", "sdk")


def test_version(sdk: Run) -> None:
    assert sdk("--version").stdout == f"sdk, version {__version__}\n"


def test_unknown_command(sdk: Run) -> None:
    done = sdk("chek")
    assert done.returncode == 2
    assert "No such command 'chek'" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SdkError("it is wrong"), 1),
        (errors.ClusterError("it is wrong"), 1),
        (errors.IngressError("it is wrong"), 1),
        (errors.OptionsError("it is wrong"), 2),
        (errors.ApplicationError("it is wrong"), 2),
        (errors.ServerError("it is wrong"), 2),
        (ModuleFailedError("it is wrong"), 1),
    ],
)
def test_error_is_one_message(error: errors.SdkError, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(group_that_raises(error, monkeypatch), ["fail"])
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", "error: it is wrong\n")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("stauts", "No such command 'stauts'. Did you mean `sdk status`?"),
        ("serve", "No such command 'serve'. Did you mean `sdk run`?"),
        ("lst", "No such command 'lst'. Did you mean `sdk services`?"),
        ("xyzzy", "No such command 'xyzzy'."),
    ],
)
def test_a_mistyped_command(typed: str, said: str) -> None:
    done = CliRunner().invoke(main, [typed], prog_name="sdk")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, f"error: {said}")


def test_an_error_is_broken_between_words_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "No module named 'shop.service' in /home/you/shop or in the installed packages"
    monkeypatch.setenv("COLUMNS", "40")
    show_error(text)
    assert capsys.readouterr().err == f"error: {text}\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show_error(text)
    lines = click.unstyle(capsys.readouterr().err).splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == f"error: {text}"


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(group_that_raises(KeyboardInterrupt(), monkeypatch), ["fail"])
    assert (done.exit_code, done.output) == (130, "")


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(group_that_raises(ValueError("a bug"), monkeypatch), ["fail"])
    assert isinstance(done.exception, ValueError)


def test_an_error_that_ray_raises_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile("raise Exception('The current node timed out\\nduring startup.')", "node.py", "exec")

    @click.command()
    def fail() -> None:
        exec(code, {"__name__": "ray._private.node"})

    monkeypatch.setattr(errors, "fail", fail, raising=False)
    done = CliRunner().invoke(LazyGroup(name="sdk", lazy={"fail": ("sdk.errors:fail", "Fails.")}), ["fail"])
    said = "error: Ray failed: Exception: The current node timed out during startup.\n"
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", said)


def test_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed.more\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    group = LazyGroup(name="sdk", lazy={"more": ("needs_more:more", "Needs more.")})
    done = CliRunner().invoke(group, ["more"])
    assert done.exit_code == 1
    assert done.stderr == "error: `sdk more` needs not_installed, which is not installed: pip install 'ray-grpc-sdk'\n"


def test_a_command_collects_no_garbage_while_it_starts_and_when_it_ends() -> None:
    program = (
        "import atexit, gc, sys; sys.argv = ['sdk', 'codegen', '--help']\n"
        "from ray_grpc_sdk import sdk\n"
        "collected = []; gc.callbacks.append(lambda *_: collected.append(1))\n"
        "atexit.register(lambda: print(not collected and len(gc.get_objects()) < 100))\n"
        "sdk()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "True"

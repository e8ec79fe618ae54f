"""Shell completion of commands, options and methods, without loading Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sdk.testing
from sdk.cli.main import _COMMANDS
from tests.support.desk_server import Clerk, Porter
from tests.support.ports import free_port

SDK = Path(sys.executable).parent / "sdk"
PATHS = [f"desk.v1.Desk/{name}" for name in ("Echo", "Count", "Add", "Talk", "Refuse", "Wait", "Tell")]


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(desk=Clerk.bind(), annex=Porter.bind()) as server:
        yield server


def run(*arguments: str, **environment: str) -> str:
    path = os.pathsep.join([str(SDK.parent), os.environ["PATH"]])
    done = subprocess.run(
        arguments, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@cache
def script_for_bash() -> str:
    return run(str(SDK), "completion", "bash")


def offered_by_bash(line: str) -> list[str]:
    """Return the completions of a line in bash."""
    program = (
        'eval "$2"; COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=(); COMP_CWORD=0; '
        '_sdk_completion sdk; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return run("bash", "-c", program, "bash", line, script_for_bash()).split("\n")[:-1]


def offered_to_zsh(*words: str) -> list[list[str]]:
    """Return type, value and help of each completion, as requested by the script for zsh."""
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "_SDK_COMPLETE": "zsh_complete"}
    lines = run(str(SDK), **asked).splitlines()
    return [lines[start : start + 3] for start in range(0, len(lines), 3)]


def offered_to_fish(line: str) -> list[str]:
    """Return the completions, as requested by the script for fish."""
    word = line.rpartition(" ")[2]
    return run(str(SDK), COMP_WORDS=line, COMP_CWORD=word, _SDK_COMPLETE="fish_complete").splitlines()


def test_commands(server: sdk.testing.Server) -> None:
    assert offered_by_bash("sdk c") == [name for name in sorted(_COMMANDS) if name.startswith("c")]
    assert ["plain", "call", _COMMANDS["call"][1]] in offered_to_zsh("sdk", "")
    assert [line.split("\t")[0] for line in offered_to_fish("sdk st")][:1] == ["plain,status"]


def test_options_and_their_values() -> None:
    assert offered_by_bash("sdk status --j") == ["--json"]
    assert offered_by_bash("sdk check app --format g") == ["github"]
    assert offered_by_bash("sdk completion ") == ["bash", "zsh", "fish"]


def test_methods_that_the_server_tells(server: sdk.testing.Server) -> None:
    line = f"sdk call {server.target} "
    assert offered_by_bash(f"{line}desk.v1.D") == PATHS
    assert offered_by_bash(f"{line}--application annex ") == ["desk.v1.Annex/Echo", "desk.v1.Annex/Ring"]
    assert offered_by_bash(f"{line}grpc.health.v1.Health/C") == ["grpc.health.v1.Health/Check"]
    assert [value for _, value, _ in offered_to_zsh("sdk", "call", server.target, "desk.v1.D")] == PATHS


def test_nothing_is_offered_or_said_where_no_server_answers() -> None:
    assert offered_by_bash(f"sdk call 127.0.0.1:{free_port()} ") == [""]
    assert offered_by_bash("sdk call nonsense ") == [""]


def offered_in(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    monkeypatch.chdir(folder)
    return offered_by_bash(line)


def test_modules_and_names_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop" / "gen").mkdir(parents=True)
    (tmp_path / "protos").mkdir()
    for name in ("shop/__init__.py", "shop/gen/shop_pb2.py", "shop_sdk.py", "serve.yaml", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "shop" / "service.py").write_text(
        "class Plain: pass\n@grpc_deployment\nclass Shop(ShopBase): pass\napp = Shop.bind()\nother = 3\n"
        "def build(args): ...\ndef _private(): ...\n"
    )
    (tmp_path / "shop" / "broken.py").write_text("class")
    assert offered_in(tmp_path, monkeypatch, "sdk check s") == ["shop"]
    assert offered_in(tmp_path, monkeypatch, "sdk check shop.") == ["shop.broken", "shop.gen", "shop.service"]
    assert offered_in(tmp_path, monkeypatch, "sdk check app shop.service:") == ["Shop", "app", "build"]
    assert offered_in(tmp_path, monkeypatch, "sdk run shop.service:a") == ["app"]
    assert offered_in(tmp_path, monkeypatch, "sdk run s") == ["shop", "serve.yaml"]
    assert offered_in(tmp_path, monkeypatch, f"sdk run {tmp_path}/s") == [f"{tmp_path}/serve.yaml", f"{tmp_path}/shop/"]
    for line in ("sdk check nothing.", "sdk check nothing:", "sdk run shop.broken:"):
        assert offered_in(tmp_path, monkeypatch, line) == [""]


def test_a_word_with_a_colon_is_completed_behind_it() -> None:
    from sdk.cli.completion import LineBashComplete
    from sdk.cli.main import main

    class Colons(LineBashComplete):
        name = "colons"

    from click.shell_completion import CompletionItem

    complete = Colons(main, {}, "sdk", "_SDK_COMPLETE")
    environment = {"COMP_LINE": "sdk run app:ma"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        assert complete.get_completion_args() == (["run"], "app:ma")
        assert complete.format_completion(CompletionItem("app:main")) == "plain,main"


@pytest.mark.parametrize("line", ["sdk ", "sdk run --", "sdk call --", "sdk codegen --"])
def test_no_completion_loads_ray(line: str) -> None:
    program = (
        "import sys; from sdk.cli.main import main\n"
        "try: main(prog_name='sdk')\n"
        "finally: print('loaded', *(m for m in ('ray', 'grpc_tools', 'rich') if m in sys.modules))"
    )
    said = run(sys.executable, "-c", program, COMP_LINE=line, _SDK_COMPLETE="bash_complete").splitlines()
    assert len(said) > 5
    assert said[-1] == "loaded"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_can_read(shell: str) -> None:
    script = run(str(SDK), "completion", shell)
    assert "_SDK_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)

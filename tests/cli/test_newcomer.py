"""A newcomer's first steps with the installed command in an empty folder, from ``sdk new`` to Ctrl-C.

They are those of ``docs/guides/getting-started.md``: the commands and the edits are taken from the page, and what a
command prints is compared with the page.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deadlines import PACE_S
from tests.support.ports import free_port
from tests.support.processes import left_with
from tests.support.sdk_command import SDK
from tests.support.small_ray import PYTHON_START
from tests.support.type_checkers import mypy_cache

BIN = SDK.parent
PAGE = (Path(__file__).parents[2] / "docs/guides/getting-started.md").read_text()


class Shell:
    """A terminal in the project's folder."""

    def __init__(self, folder: Path, temp: Path) -> None:
        self.folder = folder
        self.temp = temp
        self.mark = uuid.uuid4().hex
        self._environment = {**os.environ, "PYTHONPATH": str(PYTHON_START)}
        self._environment |= {"SDK_TEST_MARK": self.mark, "TMPDIR": str(temp)}

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=self.folder,
            env=self._environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, exit_code: int = 0, **variables: str) -> str:
        process = self.start(*command, **variables)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == exit_code, f"{command}\n{output}"
        return output

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text
        changed = file.with_suffix(".new")
        changed.write_text(text.replace(old, new))
        changed.replace(file)  # as editors do: `--reload` would also see a file that is empty for a moment


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    # Short: Ray keeps unix sockets below it, whose paths have at most 107 bytes.
    temp = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield Shell(tmp_path, temp)
    shutil.rmtree(temp)


class Tutorial:
    """The steps of the page: its commands in their order, and the blocks of code to write."""

    def __init__(self, shell: Shell, target: str) -> None:
        self._shell = shell
        self.target = target
        blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        self.left = "".join(blocks).split("$ ")[1:]

    def run(self, *, exit_code: int = 0) -> str:
        """Run the next command, compare its output with the page, and return it."""
        line, _, shown = self.left.pop(0).partition("\n")
        words = [word.replace("localhost:9000", self.target) for word in shlex.split(line)]
        output = self._shell.run(*words, exit_code=exit_code)
        if words[0] == "pytest":  # its end: plugins that a reader does not have warn before
            assert _constant(output).endswith(_constant(shown)), f"{line}\n{output}"
        else:
            assert _constant(output) == _constant(shown), line
        return output

    def code(self, language: str, number: int = 0) -> str:
        """Return a block of code."""
        block = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[number]
        return str(block)


def _constant(output: str) -> str:
    """Return output with its durations and request ids replaced."""
    return re.sub(r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}", "ID", re.sub(r"\d+(\.\d+)? ?m?s\b", "a moment", output))


class Output:
    """Output of a running command."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self.lines: list[str] = []

    def until(self, part: str) -> str:
        for line in self._stream:
            self.lines.append(line.rstrip())
            if part in line:
                return line
        raise AssertionError("\n".join(self.lines))


class Callers:
    """Sequential calls of the service with the generated client of the project."""

    def __init__(self, folder: Path, target: str) -> None:
        self.answers: list[str] = []
        self.failures: list[Exception] = []
        self._over = threading.Event()
        sys.path.insert(0, str(folder))
        from shop.gen.shop_pb2 import GreetRequest  # type: ignore[import-not-found]
        from shop.gen.shop_sdk import ShopSyncClient  # type: ignore[import-not-found]

        self._request = GreetRequest(name="you")
        self._client = ShopSyncClient(target, timeout=20)
        self._thread = threading.Thread(target=self._call)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()
        sys.path.pop(0)
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]

    def _call(self) -> None:
        while not self._over.wait(PACE_S):
            try:
                self.answers.append(self._client.Greet(self._request).text)
            except Exception as error:  # the test reports each failed call
                self.failures.append(error)


def test_from_nothing_to_a_service_that_is_called(shell: Shell) -> None:
    port = free_port()
    tutorial = Tutorial(shell, f"127.0.0.1:{port}")

    # -- a project
    tutorial.run()
    shell.folder /= "shop"
    assert "fits" in tutorial.run()
    assert "3 passed" in tutorial.run()
    assert "all up to date" in shell.run("sdk", "codegen", "--check")

    # -- it is served and called; the types are checked while it starts
    served = shell.start("sdk", "run", "shop.service:app", "--reload", "--address", "local", "--port", str(port))
    output = Output(served)
    try:
        with mypy_cache() as cache:
            shell.run("mypy", **cache)
        output.until("Press Ctrl-C to stop")
        assert "Hello" in tutorial.run()
        assert "Hello" in tutorial.run()

        # -- the proto gets a method, and so does the class, while it is called
        with Callers(shell.folder, tutorial.target) as callers:
            shell.edit("protos/shop.proto", "(stream GreetReply);\n", f"(stream GreetReply);\n{tutorial.code('proto')}")
            output.until("shop/gen: 4 generated")
            output.until("Still serving the previous version")
            assert "[missing-rpc]" in tutorial.run(exit_code=1)
            shell.edit("shop/service.py", "    def _greet", f"{tutorial.code('python')}\n    def _greet")
            # The page does it later, for another reload.
            shell.edit("tests/test_service.py", "def test_nobody", f"{tutorial.code('python', 1)}\n\ndef test_nobody")
            output.until("reloaded in")
            assert "HELLO" in tutorial.run()
            assert "ok rpc Shout" in shell.run("sdk", "check", "--strict", "shop.service")
            assert "4 passed" in tutorial.run()
            assert tutorial.left == []

            # -- an error, and its correction
            shell.edit("shop/service.py", "app = Shop.bind()", "app = Shop.bind(")
            assert "SyntaxError: '(' was never closed (shop/service.py:" in output.until("error:")
            output.until("Still serving the previous version")
            shell.edit("shop/service.py", "app = Shop.bind(", 'app = Shop.bind("Welcome")')
            output.until("reloaded in")
            call = ("sdk", "call", tutorial.target, "shop.v1.Shop/Greet", "-d", '{"name": "you"}')
            assert shell.run(*call).splitlines()[0] == '{"text": "Welcome, you!"}'
        assert not callers.failures, (len(callers.failures), len(callers.answers), callers.failures[0])
        assert list(dict.fromkeys(callers.answers)) == ["Hello, you!", "Welcome, you!"]
    finally:
        # -- Ctrl-C as in a terminal: the whole process group receives it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(served.pid, signal.SIGINT)
        rest, _ = served.communicate(timeout=60)
    assert served.returncode == 0, rest
    assert "Traceback" not in "\n".join(output.lines) + rest
    assert left_with(shell.mark) == []
    assert [path for path in shell.temp.rglob("*") if "sdk-ingress" in path.name] == []

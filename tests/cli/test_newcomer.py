"""A newcomer's first steps with the installed command in an empty folder, from ``sdk new`` to Ctrl-C."""

from __future__ import annotations

import contextlib
import os
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
from tests.support.processes import processes_with
from tests.support.sdk_command import SDK

BIN = SDK.parent


class Shell:
    """A terminal in the project's folder."""

    def __init__(self, folder: Path, temp: Path) -> None:
        self.folder = folder
        self.temp = temp
        self.mark = uuid.uuid4().hex
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._environment |= {"SDK_TEST_MARK": self.mark, "TMPDIR": str(temp)}

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, exit_code: int = 0) -> str:
        process = self.start(*command)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == exit_code, f"{command}\n{output}"
        return output

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    # Short: Ray keeps unix sockets below it, whose paths have at most 107 bytes.
    temp = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield Shell(tmp_path, temp)
    shutil.rmtree(temp)


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
    # -- a project
    shell.run("sdk", "new", "shop")
    shell.folder /= "shop"
    assert "all up to date" in shell.run("sdk", "codegen", "--check")

    # -- the proto gets a method, and so does the class
    shell.edit(
        "protos/shop.proto",
        "  // Greets one person.",
        "  // Greets loudly.\n  rpc Shout(GreetRequest) returns (GreetReply);\n\n  // Greets one person.",
    )
    assert "is stale" in shell.run("sdk", "codegen", "--check", exit_code=1)
    assert "4 written" in shell.run("sdk", "codegen")
    missing = shell.run("sdk", "check", "--strict", "shop.service", exit_code=1)
    assert "write `async def Shout(self, request: GreetRequest) -> GreetReply`" in missing
    shell.edit(
        "shop/service.py",
        "    async def GreetMany",
        "    async def Shout(self, request: GreetRequest) -> GreetReply:\n"
        '        return GreetReply(text=f"{self.greeting.upper()}, {request.name.upper()}!")\n\n'
        "    async def GreetMany",
    )
    assert "ok rpc Shout" in shell.run("sdk", "check", "--strict", "shop.service")

    # -- it is served; the types are checked and the tests run meanwhile
    port = free_port()
    target = f"127.0.0.1:{port}"
    served = shell.start("sdk", "run", "shop.service:app", "--reload", "--address", "local", "--port", str(port))
    output = Output(served)
    try:
        mypy = shell.start("mypy")
        shell.edit("tests/test_service.py", "def test_nobody", SHOUTS + "def test_nobody")
        assert "4 passed" in shell.run("pytest", "-q")
        output.until("Press Ctrl-C to stop")

        # -- it is called
        call = ("sdk", "call", target, "shop.v1.Shop/Greet", "-d", '{"name": "you"}')
        assert shell.run(*call).splitlines()[0] == '{"text": "Hello, you!"}'
        assert shell.run("python", "-m", "shop.client", target, "you", "me") == "Hello, you!\nHello, me!\n"

        # -- it changes while it is called
        with Callers(shell.folder, target) as callers:
            shell.edit("shop/service.py", '= "Hello"', '= "Good day"')
            output.until("reloaded in")
            shell.edit("shop/service.py", "app = Shop.bind()", "app = Shop.bind(")
            assert "SyntaxError: '(' was never closed (shop/service.py:" in output.until("error:")
            output.until("Still serving the previous version")
            assert shell.run(*call).splitlines()[0] == '{"text": "Good day, you!"}'
            shell.edit("shop/service.py", "app = Shop.bind(", 'app = Shop.bind("Welcome")')
            output.until("reloaded in")
            assert shell.run(*call).splitlines()[0] == '{"text": "Welcome, you!"}'
        assert not callers.failures, (len(callers.failures), len(callers.answers), callers.failures[0])
        assert list(dict.fromkeys(callers.answers)) == ["Hello, you!", "Good day, you!", "Welcome, you!"]
        types, _ = mypy.communicate(timeout=200)
        assert mypy.returncode == 0, types
    finally:
        # -- Ctrl-C as in a terminal: the whole process group receives it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(served.pid, signal.SIGINT)
        rest, _ = served.communicate(timeout=60)
    assert served.returncode == 0, rest
    assert "Traceback" not in "\n".join(output.lines) + rest
    assert processes_with(shell.mark) == []
    assert [path for path in shell.temp.rglob("*") if "sdk-ingress" in path.name] == []


SHOUTS = """\
def test_shouting(client: ShopSyncClient) -> None:
    assert client.Shout(GreetRequest(name="you")).text == "HI, YOU!"


"""

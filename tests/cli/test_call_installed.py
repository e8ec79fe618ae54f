"""The installed `sdk call` in a pipe, in a conversation, when it is interrupted, and in a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdk.testing
from tests.support.desk_server import Clerk, cancelled

SDK = Path(sys.executable).parent / "sdk"


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(desk=Clerk.bind()) as server:
        yield server


def command(*arguments: str) -> list[str]:
    return [str(SDK), "call", *arguments]


def test_the_installed_command_in_a_pipe(server: sdk.testing.Server, tmp_path: Path) -> None:
    done = subprocess.run(
        command(server.target, "Add", "--application", "desk", "-d", "-"),
        input='{"number": 1}\n{"number": 2}',
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, '{"number": "3"}\n')
    assert "\x1b" not in done.stderr


def test_standard_input_is_sent_as_it_arrives(server: sdk.testing.Server, tmp_path: Path) -> None:
    with subprocess.Popen(
        command(server.target, "Talk", "--application", "desk", "-d", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in ("a", "b"):
            print(json.dumps({"title": word}), file=process.stdin, flush=True)
            assert json.loads(process.stdout.readline()) == {"title": word.upper()}
        print('{"title": "end"}', file=process.stdin, flush=True)
        # The server has ended the call: the command ends, although its input has not.
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read().startswith("OK (2 messages in ")


def test_wrong_input_in_a_call_cancels_it(server: sdk.testing.Server, tmp_path: Path) -> None:
    done = subprocess.run(
        command(server.target, "Talk", "--application", "desk", "-d", "-"),
        input='{"title": "a"}\n{"titel": "b"}\n',
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "error: stdin, line 2, column 2: desk.v1.Ticket has no field `titel`; did you mean `title`?\n"


def test_input_that_is_not_text(server: sdk.testing.Server, tmp_path: Path) -> None:
    done = subprocess.run(
        command(server.target, "Desk/Echo", "--application", "desk", "-d", "-"),
        input=b'{"title": "\xff"}',
        capture_output=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (2, b"error: stdin: not UTF-8: invalid start byte\n")


def test_no_input_at_all(server: sdk.testing.Server, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" <&-', "bash", *command(server.target, "Add", "--application", "desk", "-d", "-")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (2, "error: -d -: standard input is closed\n")


def test_ctrl_c_cancels_the_call(server: sdk.testing.Server, tmp_path: Path) -> None:
    cancelled.clear()
    with subprocess.Popen(
        command(server.target, "Wait", "--application", "desk"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"title": "waiting"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert cancelled.wait(10)


def test_a_pipe_that_is_closed_ends_the_call(server: sdk.testing.Server, tmp_path: Path) -> None:
    with subprocess.Popen(
        command(server.target, "Count", "--application", "desk", "-d", '{"number": 1000000}'),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"number": "1000000"}
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def in_terminal(arguments: list[str], folder: Path, typed: str = "", **environment: str) -> str:
    """Return what a command writes to a terminal of 100 columns."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    known = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    with subprocess.Popen(
        arguments,
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        cwd=folder,
        env={**known, "TERM": "xterm", **environment},
    ) as process:
        os.close(secondary)
        os.write(primary, typed.encode())
        said = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and select.select([primary], [], [], 60)[0]:
            try:
                data = os.read(primary, 65536)
            except OSError:  # the other end is closed
                break
            said += data
        process.wait(60)
    os.close(primary)
    return said.decode()


def test_a_terminal(server: sdk.testing.Server, tmp_path: Path) -> None:
    arguments = command(server.target, "Desk/Echo", "--application", "desk", "-d", '{"title": "x", "seats": [1]}')
    coloured = in_terminal(arguments, tmp_path)
    assert "\x1b[" in coloured.split("OK")[0]  # the message
    assert "\x1b[32m\x1b[1mOK\x1b[0m" in coloured
    talk = in_terminal(command(server.target, "Talk", "--application", "desk", "-d", "-"), tmp_path, typed="\x04")
    assert "Type messages as JSON; press Ctrl-D to end the stream." in talk
    plain = in_terminal(arguments, tmp_path, NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert plain.startswith('{\r\n  "title": "x",\r\n  "seats": [\r\n    1\r\n  ]\r\n}\r\nOK (1 message in ')

"""``sdk run CONFIG --reload`` on a running cluster: new code, new applications, errors, and kill -9."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import sdk
from tests.integration import apps
from tests.integration.clients import FOO, metadata_for
from tests.support.deadlines import PACE_S, wait_until

CONFIG = """\
applications:
  - {name: reloaded, import_path: "reloaded_app:app", route_prefix: null}
"""
APP = """\
from tests.integration import apps
from reloaded_words import WORD

app = apps.Guide.bind(WORD)
composed = apps.Front.bind(apps.Guide.options(expose=False).bind(f"through_a_handle_{WORD}"))
"""
FAILS = """
class Failing(apps.Guide):
    def __init__(self) -> None:
        raise OSError("no such model")

from sdk import grpc_deployment
app = grpc_deployment(max_constructor_retry_count=1, name="Guide")(Failing).bind()
"""


class Command:
    """The command and its output."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [Path(sys.executable).parent / "sdk", "run", "serve.yaml", "--reload"],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(Path(apps.__file__).parent), os.environ["PYTHONPATH"]]),
                "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.until("Press Ctrl-C to stop")

    def until(self, part: str) -> str:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if part in line:
                return line.rstrip()
        raise AssertionError("".join(seen))


@pytest.fixture
def command(ingress: Any, tmp_path: Path) -> Iterator[Command]:
    (tmp_path / "serve.yaml").write_text(CONFIG)
    (tmp_path / "reloaded_app.py").write_text(APP)
    (tmp_path / "reloaded_words.py").write_text("WORD = 'first'\n")
    command = Command(tmp_path)
    yield command
    command.process.kill()
    command.process.communicate()


@contextlib.contextmanager
def calls(call: Callable[[], str]) -> Iterator[list[str]]:
    """Call in a loop, and collect responses and errors in a list."""
    over, answers = threading.Event(), []

    def run() -> None:
        while not over.wait(PACE_S):
            try:
                answers.append(call())
            except grpc.RpcError as error:  # a failed call does not end the loop
                answers.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    yield answers
    over.set()
    thread.join()


def test_a_config_is_reloaded_and_ends_with_its_command(
    command: Command, channel: grpc.Channel, tmp_path: Path
) -> None:
    stub = UserDefinedServiceStub(channel)

    def call(name: str = "reloaded") -> str:
        return str(stub.__call__(FOO, metadata=metadata_for(name), timeout=20).greeting.split()[0])

    with calls(call) as answers:
        (tmp_path / "reloaded_app.py").write_text(APP + FAILS)
        assert command.until("error:").startswith(
            "error: Application 'reloaded' failed to start: deployment Guide: OSError: no such model (reloaded_app.py:"
        )
        command.until("Still serving the previous version")
        assert call() == "first"

        (tmp_path / "reloaded_words.py").write_text("WORD = 'second'\n")
        (tmp_path / "reloaded_app.py").write_text(APP)
        added = CONFIG.splitlines()[1].replace("name: reloaded", "name: added").replace(":app", ":composed")
        (tmp_path / "serve.yaml").write_text(f"{CONFIG}{added}\ngrpc_options: {{request_timeout_s: 9}}\n")
        command.until("options of the ingress have changed; restart the command")
        command.until("reloaded in")
        assert (call(), call("added")) == ("second", "through_a_handle_second")
    assert list(dict.fromkeys(answers)) == ["first", "second"]

    sdk.run(apps.Guide.bind("taken"), name="added")  # it is this program's from now on
    command.process.kill()
    wait_until(lambda: "reloaded" not in {each.name for each in sdk.status().applications}, 60)
    assert (call("app1"), call("added")) == ("Hello", "taken"), "they are not the command's"
    sdk.delete("added")

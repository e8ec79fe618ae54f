"""Programs that run an application on a cluster where another one has started Ray Serve, in another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import ray
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from sdk._serve.api import delete
from sdk._serve.import_path import _folders_of_serve
from tests.integration.clients import FOO

# A module next to the program, which only the program's folders have.
NEAR = "GREETING = 'from {name}'\n"
APPLICATION = """
from sdk import grpc_deployment
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedResponse
from user_defined_protos_sdk import UserDefinedServiceBase

@grpc_deployment(partial=True, graceful_shutdown_wait_loop_s=0.1, ray_actor_options={{"num_cpus": 0.1}})
class Greeter(UserDefinedServiceBase):
    def __call__(self, request: UserDefinedMessage) -> UserDefinedResponse:
        import {near}
        return UserDefinedResponse(greeting={near}.GREETING)
"""
RUN = """
import ray, sdk
ray.init(log_to_driver=False, configure_logging=False)
sdk.run(Greeter.bind(), name="{name}")
"""


@pytest.fixture(scope="module")
def greeted(ingress: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The greeting of each program's application: all programs run at one time."""
    folder = tmp_path_factory.mktemp("programs")
    programs = {
        # Its class is in a module, and the shell is in another folder.
        "script": [sys.executable, str(folder / "script.py")],
        # It has no __file__, and its class is in __main__.
        "notebook": [sys.executable, "-c", (APPLICATION + RUN).format(near="near_notebook", name="notebook")],
    }
    (folder / "script.py").write_text("from module_of_script import Greeter\n" + RUN.format(name="script"))
    (folder / "module_of_script.py").write_text(APPLICATION.format(near="near_script"))
    for name in programs:
        (folder / f"near_{name}.py").write_text(NEAR.format(name=name))
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    running = {
        name: subprocess.Popen(
            command,
            cwd=folder if name == "notebook" else "/",
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, command in programs.items()
    }
    try:
        ended = {name: (program.communicate()[1], program.returncode) for name, program in running.items()}
        assert {name: code for name, (_, code) in ended.items()} == dict.fromkeys(programs, 0), ended
        with grpc.insecure_channel(ingress.address) as channel:
            call = UserDefinedServiceStub(channel).__call__
            yield {name: call(FOO, metadata=(("application", name),)).greeting for name in programs}
    finally:
        for program in running.values():
            program.kill()
            program.wait()
        with ThreadPoolExecutor() as threads:
            list(threads.map(delete, programs))


@pytest.mark.parametrize("program", ["script", "notebook"])
def test_replicas_import_from_the_folders_of_their_program(greeted: dict[str, str], program: str) -> None:
    assert greeted[program] == f"from {program}"


def test_the_folders_that_replicas_import_from_first_are_known(ingress: Any) -> None:
    assert os.getcwd() in _folders_of_serve()

"""A program: kill processes that serve with an ingress, so that they can't clean up. Prints what remains, as JSON.

It runs in a separate namespace if possible, because `ray stop` stops every Ray that it sees.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import grpc
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from sdk.cli.run.loss import is_listening
from tests.support.deadlines import happens
from tests.support.ports import free_port
from tests.support.processes import commands, ingress_folder, is_alive
from tests.support.small_ray import leave_out_processes

# Processes of the SDK; Ray's own agents take longer.
OURS = ("envoy", "supervisor.py", "ray::Proxy", "ray::Controller", "ray::ServeReplica")

# Every other program is a fork of one process that has imported Ray Serve, which takes a second of CPU time.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ray.scripts.scripts", "sdk.cli.run.command", "tests.integration.node_app"])


def drive(address: str, port: int, started: Connection) -> None:
    """Serve in a program that never exits."""
    import ray

    import sdk
    from tests.integration.node_app import Where

    if address == "local":
        leave_out_processes()
        ray.init(address=address, num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    else:
        os.environ["RAY_ADDRESS"] = address  # sdk.start connects, with the token that the cluster requires
    sdk.start(sdk.GrpcOptions(port=port))
    sdk.run(Where.options(num_replicas=1).bind(), name="served")
    started.send(sdk.status().proxies[0].node_id)
    signal.pause()


@contextlib.contextmanager
def driver(address: str, port: int) -> Iterator[tuple[ForkServerProcess, str]]:
    """Start such a program, and once it serves yield it with the id of its node."""
    started, its_end = FORKS.Pipe(duplex=False)
    process = fork(drive, address, port, its_end)
    its_end.close()
    yield process, started.recv()
    process.join()


def start_head(port: str) -> None:
    """Do what `ray start --head` does, with fewer processes."""
    from ray.scripts.scripts import start

    leave_out_processes()
    start(["--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"])


def stop_head() -> None:
    """Do what `ray stop --force` does."""
    from ray.scripts.scripts import stop

    stop(["--force"])


class SdkRun:
    """A running `sdk run`.

    Args:
        name: The application's name.
        gcs: Address of the cluster.
    """

    def __init__(self, name: str, gcs: str) -> None:
        pipes = [FORKS.Pipe(duplex=False) for _ in range(2)]
        self.process = fork(self._run, name, gcs, *(its_end for _, its_end in pipes))
        for _, its_end in pipes:
            its_end.close()
        self._output, self._errors = (os.fdopen(os.dup(end.fileno())) for end, _ in pipes)

    @staticmethod
    def _run(name: str, gcs: str, output: Connection, errors: Connection) -> None:
        from sdk.cli.main import main

        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        for end in (output, errors):
            end.close()
        main(["run", "tests.integration.node_app:idle", "--name", name, "--address", gcs])

    def wait_until_serving(self) -> None:
        serves = any("Press Ctrl-C" in line for line in self._output)
        assert serves, self._errors.read()

    def end(self) -> tuple[int | None, list[str]]:
        """Return its exit code and the lines of its errors, once it has ended."""
        self.process.join(30)
        return self.process.exitcode, self._errors.read().splitlines()


def main(is_alone: bool) -> None:
    port = free_port()
    with driver("local", port) as (process, node_id):
        report("served by a driver", call(port))
        process.kill()
    report("left by a killed driver", left(node_id, port))

    gcs = f"127.0.0.1:{free_port()}"
    run(start_head, gcs.rpartition(":")[2])
    with driver(gcs, port) as (process, node_id):
        process.kill()
    report("served without its driver", call(port))
    waits, interrupted = SdkRun("waits", gcs), SdkRun("interrupted", gcs)
    for each in (waits, interrupted):
        each.wait_until_serving()
    with ThreadPoolExecutor() as threads:
        stopped = threads.submit(stop_ray, is_alone)
        happens(lambda: not is_listening(gcs), 20)
        os.kill(interrupted.process.pid or 0, signal.SIGINT)  # before it has seen that the cluster has gone
        stopped.result()
    report("sdk run that waits", waits.end())
    report("sdk run that interrupted", interrupted.end())
    report("left by ray stop --force", left(node_id, port))


def stop_ray(is_alone: bool) -> None:
    if is_alone:
        run(stop_head)
        return
    for pid, words in own_processes():
        if not any(part in words for part in ("envoy", "supervisor.py", "multiprocessing")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def run(target: Callable[..., None], *arguments: Any) -> None:
    process = fork(target, *arguments)
    process.join(60)
    assert process.exitcode == 0, target


def fork(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    return process


def call(port: int) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            return "OK" if UserDefinedServiceStub(channel).__call__(UserDefinedMessage(), timeout=10).greeting else ""
        except grpc.RpcError as error:
            return str(error.code().name)


def left(node_id: str, port: int) -> list[str]:
    """Return the processes and files that remain after a while."""

    def look() -> list[str]:
        found = [words[:150] for _, words in own_processes() if any(part in words for part in OURS)]
        found += [str(folder) for folder in (ingress_folder(node_id),) if folder.exists()]
        with socket.socket() as probe:
            found += [f"port {port}"] if probe.connect_ex(("127.0.0.1", port)) == 0 else []
        return found

    happens(lambda: not look(), 20)
    return look()


def own_processes() -> list[tuple[int, str]]:
    """Return the descendants of this process, found by an inherited variable, with their command lines."""
    mark = os.environ["SDK_TEST_MARK"].encode()
    found = []
    for pid, words in commands("").items():
        with contextlib.suppress(OSError):
            if is_alive(pid) and mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.append((pid, words))
    return found


def report(what: str, value: Any) -> None:
    print(json.dumps([what, value]), flush=True)


if __name__ == "__main__":
    main(is_alone=sys.argv[1] == "alone")

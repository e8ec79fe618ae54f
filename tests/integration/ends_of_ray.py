"""A program: kill processes that serve with an ingress, so that they can't clean up. Prints what remains, as JSON.

It runs in a separate namespace if possible, because `ray stop` stops every Ray that it sees.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from sdk.cli.run.loss import is_listening
from tests.support.deadlines import happens
from tests.support.ports import free_port
from tests.support.processes import commands, ingress_folder, is_alive
from tests.support.sdk_command import SDK
from tests.support.small_ray import leave_out_processes

# Processes of the SDK; Ray's own agents take longer.
OURS = ("envoy", "supervisor.py", "ray::Proxy", "ray::Controller", "ray::ServeReplica")


def drive(address: str, port: int) -> None:
    """Serve from a program that never exits."""
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
    print(json.dumps(sdk.status().proxies[0].node_id), flush=True)
    signal.pause()


@contextlib.contextmanager
def driver(address: str, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start such a program, and once it serves yield it with the id of its node."""
    command = [sys.executable, __file__, "drive", address, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith('"')), "")
        assert line, "the program did not start serving"
        yield process, json.loads(line)


def start_head(port: str) -> None:
    """Do what `ray start --head` does, with fewer processes."""
    from ray.scripts.scripts import start

    leave_out_processes()
    start(["--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"])


def main(is_alone: bool) -> None:
    port = free_port()
    with driver("local", port) as (process, node_id):
        report("served by a driver", call(port))
        process.kill()
    report("left by a killed driver", left(node_id, port))

    gcs = f"127.0.0.1:{free_port()}"
    run([sys.executable, __file__, "head", gcs.rpartition(":")[2]])
    with driver(gcs, port) as (process, node_id):
        process.kill()
    report("served without its driver", call(port))
    with sdk_run("waits", gcs) as waits, sdk_run("interrupted", gcs) as interrupted:
        for each in (waits, interrupted):
            wait_until_serving(each)
        with ThreadPoolExecutor() as threads:
            stopped = threads.submit(stop_ray, is_alone)
            happens(lambda: not is_listening(gcs), 20)
            interrupted.send_signal(signal.SIGINT)  # before it has seen that the cluster has gone
            stopped.result()
        for name, each in (("waits", waits), ("interrupted", interrupted)):
            _, errors = each.communicate(timeout=30)
            report(f"sdk run that {name}", [each.returncode, errors.splitlines()])
    report("left by ray stop --force", left(node_id, port))


def stop_ray(is_alone: bool) -> None:
    if is_alone:
        run([sys.executable, "-m", "ray.scripts.scripts", "stop", "--force"])
        return
    for pid, words in own_processes():
        if not any(part in words for part in ("envoy", "supervisor.py", "bin/sdk run")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def sdk_run(name: str, gcs: str) -> subprocess.Popen[str]:
    command = [SDK, "run", "tests.integration.node_app:idle", "--name", name, "--address", gcs]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_until_serving(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    serves = any("Press Ctrl-C" in line for line in process.stdout)
    assert serves, process.communicate()[1]


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
    if sys.argv[1] == "drive":
        drive(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "head":
        start_head(sys.argv[2])
    else:
        main(is_alone=sys.argv[1] == "alone")

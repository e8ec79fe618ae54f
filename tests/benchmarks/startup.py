"""Measurement of the start: ``python -m tests.benchmarks.startup``, in five minutes.

Seconds from ``sdk run`` to the first answer, next to ``serve run`` of the same class behind Ray Serve's own gRPC proxy,
in turn: each with its own Ray, and on a Ray that runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import ray

from tests.support.cluster import ROOT
from tests.support.ports import free_port

ROUNDS = 5
GREETER = ROOT / "examples/greeter"
COMMANDS = Path(sys.executable).parent
CONFIG = """\
proxy_location: EveryNode
http_options: {{host: 127.0.0.1, port: {http_port}}}
grpc_options: {{port: {port}, grpc_servicer_functions: [greeter_pb2_grpc.add_GreeterServicer_to_server]}}
applications:
  - {{name: greeter, import_path: "greeter_app:app", route_prefix: /}}
"""

sys.path.insert(0, str(GREETER))

from greeter_pb2 import HelloRequest  # noqa: E402
from greeter_pb2_grpc import GreeterStub  # noqa: E402


def seconds_to_first_answer(command: Sequence[str | Path], port: int, environment: Mapping[str, str]) -> float:
    """Start a command, call until it answers, and end it."""
    reconnect = [(f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")]
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=GREETER, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=reconnect) as channel:
            call = GreeterStub(channel).SayHello
            while True:
                try:
                    call(HelloRequest(name="Ada"), metadata=(("application", "greeter"),), timeout=5)
                    return time.perf_counter() - begun
                except grpc.RpcError:
                    if process.poll() is not None:
                        raise RuntimeError(f"{command} ended with {process.returncode}") from None
                    time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def compare(address: str, config: Path, ports: Mapping[str, int]) -> dict[str, float]:
    """Return the medians of both commands, on the Ray at an address or each on its own, and the ratio of the two.

    Args:
        address: ``"local"``, or the address of a running Ray.
        config: The config file for ``serve run``.
        ports: The port of each command.
    """
    environment = {**os.environ, "PYTHONPATH": str(GREETER), "RAY_ADDRESS": address, "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    commands: dict[str, list[str | Path]] = {
        "sdk": [COMMANDS / "sdk", "run", "greeter_app:app", "--name", "greeter", "--port", str(ports["sdk"])],
        "serve": [COMMANDS / "serve", "run", config],
    }
    took: dict[str, list[float]] = {"sdk": [], "serve": []}
    for number in range(ROUNDS + 1):
        for name in ("sdk", "serve") if number % 2 else ("serve", "sdk"):
            seconds = seconds_to_first_answer(commands[name], ports[name], environment)
            if number:  # the first round fills caches
                took[name].append(seconds)
    sdk, serve = (round(statistics.median(took[name]), 2) for name in ("sdk", "serve"))
    return {"sdk_s": sdk, "serve_s": serve, "ratio": round(sdk / serve, 2)}


def main() -> None:
    ports = {"sdk": free_port(), "serve": free_port()}
    with contextlib.ExitStack() as cleanup:
        config = Path(cleanup.enter_context(tempfile.TemporaryDirectory())) / "serve.yaml"
        config.write_text(CONFIG.format(port=ports["serve"], http_port=free_port()))
        print(json.dumps({"start": "with its own Ray", **compare("local", config, ports)}), flush=True)
        ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)
        cleanup.callback(ray.shutdown)
        address = ray.get_runtime_context().gcs_address
        print(json.dumps({"start": "on a running Ray", **compare(address, config, ports)}), flush=True)


if __name__ == "__main__":
    main()

"""The cost of metrics, logs and traces for a unary call: each of them on and off.

Run ``python -m tests.benchmarks.observed_calls``. Replicas of Ray Serve are behind the real ingress, one application
for each row of the replica's table; the ingress starts again for each row of Envoy's. h2load sends the same calls to
each in turn, over one connection with 32 streams. It prints medians of the rounds of the CPU time of a call, which
other load on the machine changes least, and their ranges.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "gen")]
os.environ["PYTHONPATH"] = f"{HERE.parents[1]}{os.pathsep}{HERE / 'gen'}"
os.environ.update(RAY_worker_niceness="0", RAY_USAGE_STATS_ENABLED="0")

import ray  # noqa: E402 - workers inherit the environment
from bench_pb2 import Payload  # noqa: E402

import sdk  # noqa: E402
from sdk import grpc_deployment  # noqa: E402
from sdk._serve.call_metrics import CallMetrics  # noqa: E402
from sdk._wire.connection import Connection  # noqa: E402
from tests.benchmarks.servers.cluster import start_ray  # noqa: E402
from tests.benchmarks.service import Bench  # noqa: E402
from tests.benchmarks.web_protocols import cpu_s  # noqa: E402
from tests.support.otlp_receiver import receiving  # noqa: E402
from tests.support.ports import free_port  # noqa: E402

CALLS, WARM_UP, ROUNDS, STREAMS = 10_000, 3_000, 7, 32
_BODY = b"\0\0\0\0\5\n\3foo"
_ANSWER_BYTES = len(Payload(greeting="Hello foo").SerializeToString()) + 5
_UNCOUNTED = "BENCH_UNCOUNTED"
_ON, _OFF = {"enable_access_log": True}, {"enable_access_log": False}
_SPANS = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SERVICE_NAME": "bench"}

#: Name of a row, the environment of its replica, and Ray Serve's logging configuration.
REPLICAS: dict[str, tuple[dict[str, str], dict[str, bool]]] = {
    "nothing": ({_UNCOUNTED: "1"}, _OFF),
    "metrics (the default)": ({}, _OFF),
    "metrics, a line in the replica's log (the default)": ({}, _ON),
    "metrics, traces of which none is sampled": ({**_SPANS, "OTEL_TRACES_SAMPLER": "always_off"}, _OFF),
    "metrics, traces of which one in 100 is sampled": (
        {**_SPANS, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
        _OFF,
    ),
    "all, each call sampled": ({**_SPANS, "OTEL_TRACES_SAMPLER": "always_on", "OTEL_METRICS_EXPORTER": "otlp"}, _ON),
}
#: Options of the ingress by the name of a row; ``{folder}`` and the collector are filled in.
INGRESSES: dict[str, dict[str, Any]] = {
    "metrics (the default)": {},
    "access log to a file": {"access_log": "{folder}/access.log"},
    "access log of failed calls": {"access_log": "{folder}/failed.log", "access_log_failed_only": True},
    "access log over OTLP": {"access_log": "otlp"},
}


@grpc_deployment(max_ongoing_requests=4000)
class Measured(Bench):
    """The service; without the counts of its calls, if the environment says so."""

    def __init__(self) -> None:
        super().__init__()
        if os.environ.get(_UNCOUNTED):
            setattr(Connection, "is_counted", property(lambda _: False, lambda *_: None))  # noqa: B010 - it is a slot
            setattr(CallMetrics, "export", lambda _: None)  # noqa: B010 - a method


def load(port: int, application: str, calls: int, folder: Path) -> None:
    """Make calls, all of which must end well."""
    body = folder / "body"
    body.write_bytes(_BODY)
    headers = ("content-type: application/grpc", "te: trailers", f"application: {application}")
    arguments = ["-c", "1", "-m", str(STREAMS), "-n", str(calls), "-d", str(body)]
    done = subprocess.run(
        [
            "h2load",
            *arguments,
            *(part for each in headers for part in ("-H", each)),
            f"http://127.0.0.1:{port}/bench.Bench/Unary",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    # h2load ignores gRPC's status: a call that fails has no message.
    if f"{calls} succeeded, 0 failed" not in done.stdout or f"({calls * _ANSWER_BYTES}) data" not in done.stdout:
        raise RuntimeError(f"{application}: not all calls succeeded\n{done.stdout}")


def process(pattern: str) -> int:
    """Return the id of the one process below this one whose command line matches."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue  # it has ended, or is of another user
            if re.search(pattern, command) and f"BENCH_MARK={os.getpid()}".encode() in environment:
                found.append(int(folder.name))
    (one,) = found
    return one


@contextmanager
def ingress(
    options: sdk.GrpcOptions, applications: dict[str, tuple[dict[str, str], dict[str, bool]]]
) -> Iterator[None]:
    """Serve these applications."""
    sdk.start(options)
    for name, (variables, logging) in applications.items():
        actor = {"runtime_env": {"env_vars": variables}} if variables else {}
        sdk.run(Measured.options(logging_config=logging, ray_actor_options=actor).bind(), name=name)
    try:
        yield
    finally:
        sdk.shutdown()


def measure(port: int, pids: dict[str, int], folder: Path) -> dict[str, list[float]]:
    """Return the CPU time of a call in these processes, in µs, for each round."""
    costs: dict[str, list[float]] = {name: [] for name in pids}
    for name in pids:
        load(port, name, WARM_UP, folder)
    for _ in range(ROUNDS):
        for name, pid in pids.items():
            before = cpu_s(pid)
            load(port, name, CALLS, folder)
            costs[name].append((cpu_s(pid) - before) / CALLS * 1e6)
    return costs


def show(title: str, costs: dict[str, list[float]]) -> None:
    """Print a table."""
    print(f"\n| {title} | CPU time of a call, µs | range |\n| --- | --- | --- |")
    for name, each in costs.items():
        print(f"| {name} | {statistics.median(each):.1f} | {min(each):.1f} to {max(each):.1f} |", flush=True)


def main() -> None:
    """Measure, and print two tables."""
    os.environ["BENCH_MARK"] = str(os.getpid())
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp", ignore_cleanup_errors=True) as name,
        receiving() as collector,
    ):
        folder = Path(name)
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = collector.address
        os.environ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] = collector.address
        os.environ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = collector.address
        os.environ["OTEL_TRACES_EXPORTER"] = os.environ["OTEL_METRICS_EXPORTER"] = "none"
        start_ray(str(folder / "ray"))
        names = {f"row{number}": row for number, row in enumerate(REPLICAS)}
        with ingress(sdk.GrpcOptions(port=(port := free_port())), {key: REPLICAS[row] for key, row in names.items()}):
            pids = {key: process(rf"^ray::ServeReplica:{key}:") for key in names}
            found = measure(port, pids, folder)
            show("the replica, with", {names[key]: each for key, each in found.items()})
        of_envoy = {}
        for row, options in INGRESSES.items():
            filled: dict[str, Any] = {
                key: value.format(folder=folder) if isinstance(value, str) else value for key, value in options.items()
            }
            with ingress(sdk.GrpcOptions(port=(port := free_port()), **filled), {"bench": ({}, _OFF)}):
                of_envoy[row] = measure(port, {"bench": process(r"^\S*envoy .*--config-path")}, folder)["bench"]
        show("Envoy, with", of_envoy)
        ray.shutdown()


if __name__ == "__main__":
    main()

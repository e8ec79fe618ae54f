"""The cost of a small call in each protocol, next to the servers that people use for it without this SDK.

Run ``python -m tests.benchmarks.web_protocols``. Each server has one Python process; ours has Envoy in front of it, as
always, and so has ``grpc.aio`` for gRPC-Web. h2load sends the same calls to each in turn, over 32 connections of
HTTP/1.1, and gRPC over one connection of HTTP/2 with 32 streams. It prints medians of the rounds: calls a second, and
the CPU time of a call in each process, which other load on the machine changes least.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CALLS, WARM_UP, ROUNDS, AT_A_TIME = 10_000, 2_000, 5, 32
_JSON = b'{"name": "World"}'
_PROTO = b"\n\x05World"
_FRAME = b"\0\0\0\0\7" + _PROTO
_OURS = """
import sys
sys.path[:0] = ["tests/benchmarks/gen"]
from bench_pb2 import Ask, Payload
from bench_sdk import BenchBase
import sdk.testing
from sdk import grpc_deployment
from tests.benchmarks.servers.reporting import report

@grpc_deployment(partial=True)
class Bench(BenchBase):
    async def Unary(self, request: Ask) -> Payload:
        return Payload(greeting=f"Hello {request.name}!")

with sdk.testing.serve(Bench.bind()) as server:
    report(int(server.target.rpartition(":")[2]), {})
    sys.stdin.read()
"""
_SERVERS = "tests.benchmarks.servers"
#: The command of each server, after ``python``.
COMMANDS = {
    "ours": ["-c", _OURS],
    "grpc.aio": ["-m", f"{_SERVERS}.envoy_bare", "--grpc-web"],
    "connect-python": ["-m", f"{_SERVERS}.uvicorn_apps", "connect"],
    "FastAPI": ["-m", f"{_SERVERS}.uvicorn_apps", "fastapi"],
}


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    server: str
    content_type: str
    body: bytes
    is_http2: bool = False


ROWS = (
    Row("gRPC", "ours", "application/grpc", _FRAME, is_http2=True),
    Row("gRPC", "grpc.aio", "application/grpc", _FRAME, is_http2=True),
    Row("gRPC-Web", "ours", "application/grpc-web+proto", _FRAME),
    Row("gRPC-Web", "grpc.aio", "application/grpc-web+proto", _FRAME),
    Row("Connect, binary", "ours", "application/proto", _PROTO),
    Row("Connect, binary", "connect-python", "application/proto", _PROTO),
    Row("JSON", "ours", "application/json", _JSON),
    Row("JSON", "connect-python", "application/json", _JSON),
    Row("JSON", "FastAPI", "application/json", _JSON),
)


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process, in seconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def load(row: Row, port: int, calls: int, folder: Path) -> float:
    """Make calls, and return their number a second."""
    body = folder / "body"
    body.write_bytes(row.body)
    how = ["-c", "1", "-m", str(AT_A_TIME)] if row.is_http2 else ["--h1", "-c", str(AT_A_TIME)]
    headers = ["-H", f"content-type: {row.content_type}", *(["-H", "te: trailers"] if row.is_http2 else [])]
    command = ["h2load", *how, "-n", str(calls), "-d", str(body), *headers]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/bench.Bench/Unary"], capture_output=True, text=True, check=True
    )
    if f"{calls} succeeded, 0 failed" not in done.stdout or f"{calls} 2xx" not in done.stdout:
        raise RuntimeError(f"{row.name}: not all calls succeeded\n{done.stdout}")
    found = re.search(r"([\d.]+) req/s", done.stdout)
    assert found is not None
    return float(found[1])


def children(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


class Server:
    """One running server.

    Args:
        command: Its command, after ``python``.
    """

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests/benchmarks/gen", "."])}
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None
        self.port: int = json.loads(self._process.stdout.readline())["port"]
        #: Process ids by role.
        self.processes = {"Python": self._process.pid}
        for child in children(self._process.pid):
            if b"envoy" in Path(f"/proc/{child}/cmdline").read_bytes():
                self.processes["Envoy"] = child

    def end(self) -> None:
        """End it, and wait for its end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if len(self.processes) == 1:  # uvicorn does not read it
            self._process.terminate()
        self._process.wait()


def main() -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = {}
        for name, command in COMMANDS.items():
            servers[name] = Server(command)
            stack.callback(servers[name].end)
        measure(servers, Path(folder))


def measure(servers: Mapping[str, Server], folder: Path) -> None:
    """Measure each row in turn, several times, and print the medians."""
    rates: dict[Row, list[float]] = {row: [] for row in ROWS}
    costs: dict[Row, dict[str, list[float]]] = {row: {} for row in ROWS}
    for row in ROWS:
        load(row, servers[row.server].port, WARM_UP, folder)
    for _ in range(ROUNDS):
        for row in ROWS:
            server = servers[row.server]
            before = {role: cpu_s(pid) for role, pid in server.processes.items()}
            rates[row].append(load(row, server.port, CALLS, folder))
            for role, pid in server.processes.items():
                costs[row].setdefault(role, []).append((cpu_s(pid) - before[role]) / CALLS * 1e6)
    print("| protocol | server | calls/s | CPU time of a call in Python | in Envoy |\n| --- | --- | --- | --- | --- |")
    for row in ROWS:
        python, envoy = (
            f"{statistics.median(costs[row][role]):.0f} µs" if role in costs[row] else ""
            for role in ("Python", "Envoy")
        )
        print(f"| {row.name} | {row.server} | {statistics.median(rates[row]):,.0f} | {python} | {envoy} |")


if __name__ == "__main__":
    main()

"""The cost of a small call in each protocol, next to FastAPI on uvicorn for JSON.

Run ``python -m tests.benchmarks.web_protocols``. Both servers have one Python process, with uvloop and httptools; ours
has Envoy in front of it, as always. h2load sends the same calls to each in turn, over 32 connections of HTTP/1.1, and
gRPC over one connection of HTTP/2 with 32 streams. It prints medians of the rounds: calls a second, and the CPU time of
a call in each process, which other load on the machine changes least.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port

CALLS, WARM_UP, ROUNDS, AT_A_TIME = 10_000, 2_000, 5, 32
_JSON = b'{"name": "World"}'
_PROTO = b"\n\x05World"
_FRAME = b"\0\0\0\0\7" + _PROTO
_FASTAPI = """
from fastapi import FastAPI
from pydantic import BaseModel

class Ask(BaseModel):
    name: str = ""
    size: int = 0
    count: int = 0

class Payload(BaseModel):
    greeting: str = ""

app = FastAPI()

@app.post("/bench.Bench/Unary", response_model=Payload)
async def unary(ask: Ask) -> Payload:
    return Payload(greeting=f"Hello {ask.name}!")
"""
_OURS = """
import sys, time
sys.path[:0] = ["tests/benchmarks/gen"]
from bench_pb2 import Ask, Payload
from bench_sdk import BenchBase
import sdk.testing
from sdk import grpc_deployment

@grpc_deployment(partial=True)
class Bench(BenchBase):
    async def Unary(self, request: Ask) -> Payload:
        return Payload(greeting=f"Hello {request.name}!")

with sdk.testing.serve(Bench.bind()) as server:
    print(server.target, flush=True)
    sys.stdin.read()
"""


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
    Row("gRPC-Web", "ours", "application/grpc-web+proto", _FRAME),
    Row("Connect, binary", "ours", "application/proto", _PROTO),
    Row("JSON", "ours", "application/json", _JSON),
    Row("JSON, FastAPI", "fastapi", "application/json", _JSON),
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


def main() -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(_FASTAPI)
        port = free_port()
        uvicorn = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "error"]
        options = ["--no-access-log", "--loop", "uvloop", "--http", "httptools"]
        with (
            subprocess.Popen([*uvicorn, *options], cwd=folder) as fastapi,
            subprocess.Popen(
                [sys.executable, "-c", _OURS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as ours,
        ):
            try:
                assert ours.stdout is not None
                ports = {"ours": int(ours.stdout.readline().rpartition(":")[2]), "fastapi": port}
                (envoy,) = (
                    child for child in children(ours.pid) if b"envoy" in Path(f"/proc/{child}/cmdline").read_bytes()
                )
                processes = {"ours": {"Python": ours.pid, "Envoy": envoy}, "fastapi": {"Python": fastapi.pid}}
                time.sleep(2)  # uvicorn says nothing when it listens
                measure(ports, processes, folder)
            finally:
                fastapi.terminate()
                ours.communicate()


def measure(ports: Mapping[str, int], processes: Mapping[str, Mapping[str, int]], folder: Path) -> None:
    """Measure each row in turn, several times, and print the medians."""
    rates: dict[str, list[float]] = {row.name: [] for row in ROWS}
    costs: dict[str, dict[str, list[float]]] = {row.name: {} for row in ROWS}
    for row in ROWS:
        load(row, ports[row.server], WARM_UP, folder)
    for _ in range(ROUNDS):
        for row in ROWS:
            of = processes[row.server]
            before = {role: cpu_s(pid) for role, pid in of.items()}
            rates[row.name].append(load(row, ports[row.server], CALLS, folder))
            for role, pid in of.items():
                costs[row.name].setdefault(role, []).append((cpu_s(pid) - before[role]) / CALLS * 1e6)
    print("| | calls/s | CPU time of a call, µs |\n| --- | --- | --- |")
    for row in ROWS:
        parts = ", ".join(f"{role} {statistics.median(each):.0f}" for role, each in costs[row.name].items())
        print(f"| {row.name} | {statistics.median(rates[row.name]):,.0f} | {parts} |")


if __name__ == "__main__":
    main()

"""Measure start times, and the cost of an idle ingress."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from bench_pb2 import Ask, Payload

from tests.benchmarks.load import APPLICATION, LoadError, Server, cpu_seconds, idle_connections, processes_of

_HERE = Path(__file__).resolve().parent
_PATIENCE_S = 120.0
_IDLE_S = 10.0
_CONNECTIONS = 1000
_SLOW_STREAMS = 20
_INGRESS = {"controller": r"^ray::Controller", "proxy": r"^ray::Proxy\b"}


def measure(server: Server) -> list[tuple[str, str]]:
    """Return each measurement and its figure with the unit; the server is the SDK's, and nothing calls it.

    Raises:
        LoadError: A call failed.
    """
    try:
        return _measure(server)
    except grpc.RpcError as error:
        raise LoadError(f"{server.name}: {error}") from error


def _measure(server: Server) -> list[tuple[str, str]]:
    return [
        ("`import sdk`", _ms(lambda: _python("-c", "import sdk"))),
        ("`import sdk`, Python's own start taken off", _ms(lambda: _python("-c", "import sdk"), _python_start())),
        ("`sdk --help`", _ms(lambda: subprocess.run([_sdk(), "--help"], check=True, stdout=subprocess.DEVNULL))),
        ("`sdk run` to the first answer, Ray's start included", f"{_first_answer():.1f} s"),
        *_idle(server),
        _memory_of_connections(server),
        *_memory_of_slow_consumers(server),
    ]


def table(rows: list[tuple[str, str]]) -> str:
    """Return the figures as a Markdown table."""
    if not rows:
        return ""
    width = max(len(what) for what, _ in rows)
    lines = [f"| {'what'.ljust(width)} | figure |", f"| {'-' * width} | ------ |"]
    return "\n".join(lines + [f"| {what.ljust(width)} | {figure} |" for what, figure in rows])


def _sdk() -> str:
    return str(Path(sys.executable).with_name("sdk"))


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True)


def _python_start() -> float:
    return statistics.median(_seconds(lambda: _python("-c", "pass")) for _ in range(5))


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _ms(action: Callable[[], object], less: float = 0.0) -> str:
    action()  # once before, so that files are in memory
    return f"{1000 * (statistics.median(_seconds(action) for _ in range(5)) - less):.0f} ms"


def _first_answer() -> float:
    """Run the service with the command and wait for its first answer."""
    from tests.support.ports import free_port

    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        began = time.perf_counter()
        process = subprocess.Popen(
            [_sdk(), "run", "tests.benchmarks.service:app", "--port", str(port), "--address", "local"],
            cwd=_HERE.parents[1],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "RAY_TMPDIR": folder, "PYTHONPATH": str(_HERE / "gen")},
        )
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                unary: Any = channel.unary_unary("/bench.Bench/Unary", Ask.SerializeToString, Payload.FromString)
                while not _is_answered(unary):
                    time.sleep(0.01)
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)


def _is_answered(unary: Any) -> bool:
    """Call as soon as Envoy listens; it listens before the application exists, and answers NOT_FOUND until then."""
    try:
        unary(Ask(), wait_for_ready=True, timeout=_PATIENCE_S)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


def _idle(server: Server) -> list[tuple[str, str]]:
    processes = processes_of(server.pid, {**_INGRESS, **server.patterns})
    before = {name: cpu_seconds(pids) for name, pids in processes.items()}
    time.sleep(_IDLE_S)
    rows = []
    for name, pids in processes.items():
        share = 100 * (cpu_seconds(pids) - before[name]) / _IDLE_S
        rows.append((f"{name}, idle", f"{share:.1f} % of a core, {memory_mb(pids):.0f} MB"))
    return rows


def memory_mb(pids: list[int]) -> float:
    """Return the proportional memory of processes, in MB (proc(5), smaps_rollup, Pss)."""
    kilobytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes / 1000


def _memory_of_connections(server: Server) -> tuple[str, str]:
    (envoy,) = (pids for name, pids in processes_of(server.pid, server.patterns).items() if name == "Envoy")
    before = memory_mb(envoy)
    with idle_connections(_CONNECTIONS, server.port):
        _call(server)  # Envoy has taken every connection before this one
        grown = memory_mb(envoy) - before
    return f"Envoy, for each of {_CONNECTIONS:,} idle connections", f"{1000 * grown / _CONNECTIONS:.1f} KB"


def _call(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        unary: Any = channel.unary_unary("/bench.Bench/Unary", Ask.SerializeToString, Payload.FromString)
        unary(Ask(), metadata=(APPLICATION,))


def _memory_of_slow_consumers(server: Server) -> list[tuple[str, str]]:
    """Start streams of 100 MB each without reading them, and measure the server's memory when it stops sending."""
    processes = processes_of(server.pid, server.patterns)
    before = {name: memory_mb(pids) for name, pids in processes.items()}
    ask = Ask(size=1 << 20, count=100)
    limits = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=limits) as channel:
        method: Any = channel.unary_stream("/bench.Bench/Download", Ask.SerializeToString, Payload.FromString)
        calls = [method(ask, metadata=(APPLICATION,)) for _ in range(_SLOW_STREAMS)]
        for call in calls:
            next(call)
        _wait_until_still(processes)
        after = {name: memory_mb(pids) for name, pids in processes.items()}
        for call in calls:
            call.cancel()
    return [
        (f"{name}, for each of {_SLOW_STREAMS} streams of 100 MB that nobody reads", f"{grown:.1f} MB")
        for name, grown in ((name, (after[name] - before[name]) / _SLOW_STREAMS) for name in processes)
    ]


def _wait_until_still(processes: dict[str, list[int]]) -> None:
    pids = [pid for each in processes.values() for pid in each]
    used, deadline = -1.0, time.monotonic() + _PATIENCE_S
    while (now := cpu_seconds(pids)) - used > 0.02 and time.monotonic() < deadline:
        used = now
        time.sleep(0.5)

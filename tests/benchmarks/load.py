"""The load generators: h2load, so that no Python client is measured, and a grpc.aio client where h2load can't be used.

h2load ignores gRPC's status. So a gRPC client first checks one call of each work on each server, status and content,
and after each run the length of all answers must be that of right answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio
from bench_pb2 import Ask, Payload

from tests.benchmarks.pausing import tree_of
from tests.benchmarks.works import Work

# Ray Serve routes by it, and so do we when there are several applications; a bare server does not mind.
APPLICATION = ("application", "bench")
_PATIENCE_S = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")
_LIMITS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
_NO_FLOW_CONTROL = ("-w", "30", "-W", "30")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # and an empty SETTINGS frame


class Server(Protocol):
    """A running server, as the load generators see it.

    Attributes:
        name: Its name in the tables.
        port: Its port on 127.0.0.1.
        pid: Id of its program; whatever it starts is below that.
        patterns: Regular expressions for the command lines of its processes, by role.
    """

    name: str
    port: int
    pid: int
    patterns: dict[str, str]


class LoadError(Exception):
    """A server gives a wrong answer, or no answer."""


@dataclass(frozen=True)
class Run:
    """The figures of one run of one work on one server.

    Attributes:
        rate: Units of the work a second.
        p50_us: Median time of a call (of a round trip in ping-pong), in microseconds.
        p99_us: The same for the 99th percentile.
        cpu_us: CPU time, user and system, in microseconds a call, by process; ``"client"`` is the load generator's.
    """

    rate: float
    p50_us: float
    p99_us: float
    cpu_us: dict[str, float]


def path_of(work: Work) -> str:
    """Return the HTTP/2 path of a work's RPC."""
    return f"/bench.Bench/{work.method}"


def frames(work: Work) -> bytes:
    """Return the body of a call: each message with the prefix that gRPC puts before it."""
    encoded = [message.SerializeToString() for message in work.messages]
    return b"".join(b"\0" + len(data).to_bytes(4, "big") + data for data in encoded)


def verify(work: Work, server: Server) -> None:
    """Wait for the server, make one call with a gRPC client, and check the status and every message.

    Raises:
        LoadError: The status or a message is wrong.
    """
    answer = Ask if work.method == "Upload" else Payload
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=_LIMITS) as channel:
        call = channel.stream_stream(
            path_of(work),
            type(work.messages[0]).SerializeToString,
            answer.FromString,
        )(
            iter(work.messages),
            metadata=(APPLICATION, *((key, value) for key, value in work.metadata if key != "grpc-timeout")),
            timeout=0.02 if work.status == "DEADLINE_EXCEEDED" else _PATIENCE_S,
            wait_for_ready=work.status == "OK",
        )
        length = 0
        try:
            for message in call:
                length += len(message.SerializeToString()) + 5
        except grpc.RpcError:
            pass
        if call.code().name != work.status:
            raise LoadError(f"{server.name}, {work.name}: {call.code().name}: {call.details()}")
        if not work.ping_pong and work.status == "OK" and length != work.response_bytes:
            raise LoadError(f"{server.name}, {work.name}: answers of {length} bytes, and not {work.response_bytes}")


def processes_of(root: int, patterns: dict[str, str]) -> dict[str, list[int]]:
    """Return the ids of a process, and of those below it, whose command lines match, by role."""
    lines = {}
    for pid in tree_of(root):
        with contextlib.suppress(OSError):  # it has ended
            lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    return {label: [pid for pid, line in lines.items() if re.search(p, line)] for label, p in patterns.items()}


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time that processes have used, user and system (proc(5), stat, fields 14 and 15)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):  # HAProxy replaces itself when it reads a new configuration
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def run(work: Work, server: Server, calls: int) -> Run:
    """Make a number of calls.

    Raises:
        LoadError: A call went wrong.
    """
    processes = processes_of(server.pid, server.patterns)
    with idle_connections(work.idle_connections, server.port):
        before = {label: cpu_seconds(pids) for label, pids in processes.items()}
        took, times, client = (_ping_pong if work.ping_pong else _h2load)(work, server, calls)
        used = {label: cpu_seconds(pids) - before[label] for label, pids in processes.items()}
    used["client"] = client
    centiles = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    return Run(
        calls * work.per_call / took, centiles[49], centiles[98], {label: 1e6 * s / calls for label, s in used.items()}
    )


def _h2load(work: Work, server: Server, calls: int) -> tuple[float, list[float], float]:
    """Return the seconds, the time of each call in microseconds, and h2load's own CPU seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(frames(work))
        headers = ["content-type: application/grpc", "te: trailers", ": ".join(APPLICATION)]
        headers += [f"{key}: {value}" for key, value in work.metadata]
        command = [
            *("h2load", "-n", str(calls), "-c", str(work.connections), "-m", str(work.streams), "-t", "1"),
            *(*_NO_FLOW_CONTROL, "-d", str(body), "--log-file", str(log)),
            *(part for header in headers for part in ("-H", header)),
            f"http://127.0.0.1:{server.port}{path_of(work)}",
        ]
        before = os.times()
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        after = os.times()
        rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
        succeeded = re.search(r"(\d+) succeeded", done.stdout)
        received = re.search(r"\((\d+)\) data", done.stdout)
        expected = calls * work.response_bytes
        if not (rate and succeeded and received) or int(succeeded[1]) != calls or int(received[1]) != expected:
            raise LoadError(
                f"{server.name}, {work.name}: not every call went well; h2load says:\n{done.stdout}{done.stderr}"
            )
        times = [float(line.split("\t")[2]) for line in log.read_text().splitlines()]
    client = after.children_user - before.children_user + after.children_system - before.children_system
    return calls / float(rate[1]), times, client


def _ping_pong(work: Work, server: Server, calls: int) -> tuple[float, list[float], float]:
    times: list[float] = []

    async def one(channel: grpc.aio.Channel) -> None:
        call: Any = channel.stream_stream(path_of(work), Payload.SerializeToString, Payload.FromString)(
            metadata=(APPLICATION,)
        )
        (message,) = work.messages
        for _ in range(int(work.per_call)):
            began = time.perf_counter()
            await call.write(message)
            if await call.read() != message:
                raise LoadError(f"{server.name}, {work.name}: another message came back")
            times.append(1e6 * (time.perf_counter() - began))
        await call.done_writing()
        if await call.code() is not grpc.StatusCode.OK:
            raise LoadError(f"{server.name}, {work.name}: {await call.code()}: {await call.details()}")

    async def all_of_them() -> float:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            await channel.channel_ready()
            began = time.perf_counter()
            for _ in range(0, calls, work.streams):
                await asyncio.gather(*(one(channel) for _ in range(work.streams)))
            return time.perf_counter() - began

    before = time.process_time()
    took = asyncio.run(all_of_them())
    return took, times, time.process_time() - before


@contextlib.contextmanager
def idle_connections(count: int, port: int) -> Iterator[None]:
    """Hold connections open that send only their preface."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(_PREFACE)
        yield

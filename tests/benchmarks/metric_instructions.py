"""The instructions that the metrics of a unary call take in a replica, counted with valgrind.

Run ``python -m tests.benchmarks.metric_instructions``; it needs Debian's package ``valgrind``, and a minute. The same
bytes of calls are given to the wire server of a replica, without sockets, with the metrics and without them. Each of
the two runs with a few calls and with many: the difference, divided by the calls, has no start of Python in it. Other
work on the machine does not change these numbers.

There is no option that switches the metrics off, so the statements that count a call are taken out of the source. To
turn instructions into time, more calls run without valgrind, and the call's instructions are divided by its CPU time.

Every two seconds a replica also hands the counts to Ray's exporter, however many calls there were: its CPU time is in
the second table.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from sdk._wire.call_counts import ONE_MESSAGE

if TYPE_CHECKING:
    from sdk._wire.server import WireServer

FEW, MANY, ROUNDS = 200, 1200, 7
#: The code that counts a unary call, and what is there without it, by module.
COUNTING = {
    "sdk._wire.connection": {
        "self._began = perf_counter()": "pass",
        "perf_counter() - self._began": "0.0",
        "if self.is_counted:": "if False:",
    },
    "sdk._wire.call": {
        "self.route.counts.received += len(body) + _ONE_FRAMED": "pass",
        "self.route.counts.sent += length + ONE_MESSAGE": "pass",
    },
}


def without_metrics(module: str, source: str) -> str:
    """Return the source of a module without the code that counts a call.

    Args:
        module: Its name.
        source: Its source.

    Raises:
        ValueError: The module has changed, and :data:`COUNTING` has not.
    """
    for code, instead in COUNTING[module].items():
        if code not in source:
            raise ValueError(f"{module} has no {code!r}: change COUNTING in {__name__}")
        source = source.replace(code, instead)
    return source


class _Loader(SourceFileLoader):
    """Loads a module without the code of :data:`COUNTING`."""

    def get_code(self, fullname: str) -> CodeType:
        return compile(without_metrics(fullname, Path(self.path).read_text()), self.path, "exec")


class _WithoutMetrics(MetaPathFinder):
    """Finds the modules of :data:`COUNTING`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in COUNTING else None
        if spec is not None:
            assert spec.origin is not None
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Transport:
    """Envoy's end of a connection; it keeps the length of what is written."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> Any:
        return None


def wire_server() -> WireServer:
    """Return the server of one unary method, attached to the running loop."""
    from google.protobuf.wrappers_pb2 import StringValue

    from sdk._wire.server import WireServer
    from sdk.service import Cardinality, Method, MethodBinding

    async def unary(request: StringValue) -> StringValue:
        return request

    method = Method("unary", "unary", "/t.T/unary", Cardinality.UNARY_UNARY, StringValue, StringValue)
    server = WireServer([MethodBinding(method, unary)], None)
    server.host.attach(asyncio.get_running_loop())
    return server


async def serve(calls: int) -> None:
    """Give so many calls to a wire server, one after the other.

    Args:
        calls: Number of calls.
    """
    from google.protobuf.wrappers_pb2 import StringValue

    from sdk._wire.frames import pack_prefix

    server = wire_server()
    connection, transport = server.new_connection(), _Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]  # it has what a connection uses
    message = StringValue(value="foo").SerializeToString()
    body = pack_prefix(0, len(message)) + message
    call = (
        b"POST /t.T/unary HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\nx-request-id: made\r\n"
        b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    )
    for _ in range(calls):
        before = transport.written
        connection.data_received(call)
        while transport.written == before:
            await asyncio.sleep(0)
    for path, counted in server.take_counts():
        print(path, counted.total, flush=True)


def run(calls: int, *, is_counted: bool, under: Sequence[str] = ()) -> float:
    """Run a process that serves calls, and return its CPU time for them, in seconds.

    Args:
        calls: Number of calls.
        is_counted: Whether they are counted.
        under: The command that runs Python.
    """
    command = [*under, sys.executable, "-m", __spec__.name, "serve", str(calls), "on" if is_counted else "off"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    *counts, seconds = done.stdout.splitlines()
    if counts != ([f"/t.T/unary {calls}"] if is_counted else []):
        raise RuntimeError(f"wrong counts: {counts}")
    return float(json.loads(seconds))


def instructions(calls: int, *, is_counted: bool) -> int:
    """Return the instructions of such a process.

    Args:
        calls: Number of calls.
        is_counted: Whether they are counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
        run(calls, is_counted=is_counted, under=valgrind)
        found = re.search(r"^totals: (\d+)$", output.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("valgrind has written no totals")
    return int(found[1])


def per_call(*, is_counted: bool) -> float:
    """Return the instructions of one call.

    Args:
        is_counted: Whether it is counted.
    """
    few, many = (instructions(calls, is_counted=is_counted) for calls in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def instructions_per_us(of_a_call: float) -> float:
    """Return how many instructions of a call this machine executes in a microsecond: the median of some runs.

    Args:
        of_a_call: Instructions of a call.
    """
    calls = 50 * MANY
    return statistics.median(of_a_call * calls / run(calls, is_counted=True) / 1e6 for _ in range(ROUNDS))


async def export_us(calls: int) -> float:
    """Return the CPU time of an export of the metrics, in µs: the median of some.

    Args:
        calls: Calls since the export before.
    """
    import ray
    import ray.util

    from sdk._serve import call_metrics

    context = SimpleNamespace(get_node_id=lambda: "n", get_actor_id=lambda: "a")
    ray.get_runtime_context = lambda: context  # type: ignore[assignment, return-value]  # there is no cluster
    ray.util.get_node_ip_address = lambda _="": "127.0.0.1"
    server = wire_server()
    metrics = call_metrics.CallMetrics(server, application="a", deployment="d", replica="r")
    (route,) = server.routes.values()
    spent = []
    for _ in range(ROUNDS):
        for _ in range(calls):
            route.counts.add(0, 0.0005, is_inner=False)
            route.counts.sent += ONE_MESSAGE
            route.counts.received += ONE_MESSAGE
        began = time.process_time()
        metrics.export()
        spent.append((time.process_time() - began) * 1e6)
    return statistics.median(spent)


def main() -> None:
    """Count, and print a table."""
    if sys.argv[1:2] == ["serve"]:
        if sys.argv[3] == "off":
            sys.meta_path.insert(0, _WithoutMetrics())
        import sdk._wire.server

        assert sdk._wire.server
        gc.collect()
        gc.freeze()  # a collection then looks at the objects of calls only, and not at those of Python's start
        began = time.process_time()
        asyncio.run(serve(int(sys.argv[2])))
        print(time.process_time() - began)
        return
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: apt-get install valgrind")
    on, off = per_call(is_counted=True), per_call(is_counted=False)
    speed = instructions_per_us(on)
    print("| a unary call in the replica | instructions | µs |\n| --- | --- | --- |")
    for name, count in ("with metrics", on), ("without", off), ("the metrics", on - off):
        print(f"| {name} | {count:,.0f} | {count / speed:.2f} |")
    print(f"\n{speed:,.0f} instructions a microsecond, Python {sys.version.split()[0]}\n")
    print("| calls between two exports | CPU time of an export, µs |\n| --- | --- |")
    for calls in 0, 20, 400, 40_000:
        print(f"| {calls:,} | {asyncio.run(export_us(calls)):,.0f} |")


if __name__ == "__main__":
    main()

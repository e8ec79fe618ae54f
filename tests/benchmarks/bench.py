"""Compare the SDK with other ways to serve gRPC from Python, all on this machine in one run.

``make bench`` runs it. Every server answers with the same handlers at the same niceness. The rounds of the servers
alternate, so that other work on the machine affects all of them, and the servers that wait for their turn are stopped.
Everything listens on 127.0.0.1 (except HAProxy, which Ray Serve binds to all addresses).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent.parent / "bench-results"
sys.path[:0] = [str(HERE / "gen")]

from tests.benchmarks import footprint, pausing  # noqa: E402 - the generated code must be found first
from tests.benchmarks.load import LoadError, Run, run, verify  # noqa: E402
from tests.benchmarks.report import machine, save, summary  # noqa: E402
from tests.benchmarks.results import Result  # noqa: E402
from tests.benchmarks.works import ALL, BARE, BARE_UVLOOP, ENVOY_BARE, OURS, PAIR, SERVE, SERVE_HAPROXY, WORKS, Work  # noqa: E402

_PROGRAMS = {
    OURS: ("ours.py", "{folder}"),
    BARE: ("bare.py",),
    BARE_UVLOOP: ("bare.py", "--uvloop"),
    ENVOY_BARE: ("envoy_bare.py",),
    SERVE: ("ray_serve.py", "{folder}"),
    SERVE_HAPROXY: ("ray_serve.py", "{folder}", "--haproxy"),
}
_PATIENCE_S = 120.0
_MIN_CALLS = 4


class Server:
    """One running server.

    Args:
        name: Its name in the tables.
        process: Its program.
    """

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process
        self.pid = process.pid
        self.port = 0
        self.patterns: dict[str, str] = {}
        self._is_paused = False
        self.read_report()

    def read_report(self) -> None:
        """Wait until the program reports its port.

        Raises:
            LoadError: The program ended instead.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"port"'):
                report = json.loads(line)
                self.port, self.patterns = report["port"], report["processes"]
                return
        raise LoadError(f"{self.name} ended with exit code {self._process.wait()} before it listened")

    def set(self, setting: dict[str, int]) -> None:
        """Bring the server into another state."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(setting) + "\n")
        self._process.stdin.flush()
        self.read_report()

    def pause(self) -> None:
        """Stop the server until it is resumed."""
        pausing.pause(self.pid)
        self._is_paused = True

    def resume(self) -> None:
        """Resume the server."""
        if self._is_paused:
            pausing.resume(self.pid)
            self._is_paused = False


def leave_alone(server: Server, servers: Iterable[Server]) -> Server:
    """Stop every server but one, and return that one."""
    for other in servers:
        if other is not server:
            other.pause()
    server.resume()
    return server


@contextlib.contextmanager
def started(name: str, folder: Path, guard: IO[str]) -> Iterator[Server]:
    """Run a server."""
    folder.mkdir()
    program, *arguments = _PROGRAMS[name]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "servers" / program), *(each.format(folder=folder) for each in arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # Ray starts its workers with niceness 15; a bare server has none.
            env={
                **os.environ,
                "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE / 'gen'}",
                "RAY_worker_niceness": "0",
                "RAY_USAGE_STATS_ENABLED": "0",
            },
        )
    guard.write(f"{process.pid}\n")
    guard.flush()
    try:
        yield Server(name, process)
    finally:
        assert process.stdin is not None
        pausing.resume(process.pid)
        process.stdin.close()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def calls_for(work: Work, server: Server, seconds: float) -> int:
    """Return how many calls take about so many seconds; they also warm the server up."""
    step = work.streams * work.connections
    calls = max(_MIN_CALLS, step)
    while True:
        began = time.perf_counter()
        run(work, server, calls)
        took = time.perf_counter() - began
        if took > seconds / 8:
            return max(_MIN_CALLS, step, round(calls * seconds / took / step) * step)
        calls *= 4


def measure(works: list[Work], servers: dict[str, Server], rounds: int, seconds: float) -> list[Result]:
    """Do every work on every server that it names, in interleaved rounds."""
    results = []
    for number, work in enumerate(works, 1):
        doing = [servers[name] for name in work.servers if name in servers]
        if work.setting:
            leave_alone(servers[OURS], servers.values()).set(work.setting)
        calls = {}
        for server in doing:
            verify(work, leave_alone(server, servers.values()))
            calls[server.name] = calls_for(work, server, seconds)
        runs: dict[str, list[Run]] = {server.name: [] for server in doing}
        for turn in range(rounds):
            # Each server goes first in every other round.
            for server in doing if turn % 2 == 0 else reversed(doing):
                verify(work, leave_alone(server, servers.values()))
                runs[server.name].append(run(work, server, calls[server.name]))
        results.append(Result(work, runs))
        print(f"{number:2} of {len(works)}  {results[-1].line()}", flush=True)
    return results


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="the works that have targets, next to grpc.aio; two minutes"
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="only works whose name matches")
    parser.add_argument("--servers", default="", metavar="NAMES", help="only these servers, separated by commas")
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        print("h2load is missing: install it with `apt-get install nghttp2-client`", file=sys.stderr)
        return 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 1 << 14)), hard))
    works = [work for work in WORKS if re.search(arguments.only, work.name) and (work.quick or not arguments.quick)]
    names = [name for name in ALL if name in arguments.servers.split(",")] or (PAIR if arguments.quick else ALL)
    about = machine()
    began = time.monotonic()
    figures: list[tuple[str, str]] = []
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
            guard = stack.enter_context(pausing.guard()).stdin
            assert guard is not None
            servers: dict[str, Server] = {}
            for index, name in enumerate(names):
                print(f"starting {name}", flush=True)
                servers[name] = stack.enter_context(started(name, folder / str(index), guard))
                servers[name].pause()
            if not arguments.quick and not arguments.only and OURS in servers:
                figures = footprint.measure(leave_alone(servers[OURS], servers.values()))
                print(footprint.table(figures), flush=True)
            results = measure(works, servers, 3 if arguments.quick else 5, 1.0 if arguments.quick else 1.5)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    about["minutes"] = round((time.monotonic() - began) / 60, 1)
    print(f"\n{summary(results)}\n\n{footprint.table(figures)}\n")
    start = RESULTS / ("quick" if arguments.quick else "full")
    print(f"saved to {save(results, figures, about, start, with_growth=not arguments.only)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Start, update and remove many real replicas under constant load, and measure what the ingress uses meanwhile.

    .venv/bin/python -m tests.benchmarks.many_replicas --replicas 200 --save out.json

It starts its own Ray cluster on this machine. One deployment has one replica, then all, then all are replaced, and then
it has one again. Meanwhile clients call it through Envoy: unary calls, calls that another application makes through a
handle, and streams of three seconds. It prints the calls that failed in each phase, and the CPU time of the ingress. It
exits with 1 if a call failed or the controller used more than 5 % of a core, with 2 if the machine has too little
memory, and with 3 at the time limit. All processes that it starts end with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "gen")]
os.environ["PYTHONPATH"] = f"{HERE.parents[1]}{os.pathsep}{HERE / 'gen'}"
os.environ.update(RAY_USAGE_STATS_ENABLED="0", GRPC_ENABLE_FORK_SUPPORT="0")
# One heap for the 40 threads of a replica: 96 MB in place of 109 (mallopt(3)).
os.environ.setdefault("MALLOC_ARENA_MAX", "1")

import grpc  # noqa: E402
import grpc.aio  # noqa: E402
import ray  # noqa: E402 - workers inherit the environment
from bench_pb2 import Ask, Payload  # noqa: E402
from ray import serve  # noqa: E402
from ray.serve.schema import ServeDeploySchema  # noqa: E402

import sdk  # noqa: E402
from sdk.errors import ClusterError  # noqa: E402
from tests.benchmarks.footprint import memory_mb  # noqa: E402
from tests.benchmarks.load import cpu_seconds, processes_of  # noqa: E402
from tests.benchmarks.many_replicas_apps import CALLER, MANY, Caller  # noqa: E402
from tests.benchmarks.pausing import tree_of  # noqa: E402
from tests.benchmarks.servers.cluster import start_ray  # noqa: E402
from tests.support.ports import free_port  # noqa: E402

_INGRESS = {
    "controller": r"^ray::Controller",
    "proxy": r"^ray::Proxy\b",
    "Envoy": r"^\S*envoy .*--config-path",
    "Ray Serve's controller": r"^ray::ServeController",
    "raylet": r"raylet/raylet ",
}
_REPLICAS = {"replica": rf"^ray::ServeReplica:{MANY}:"}
# MB of a replica, most of it Ray Serve's imports; more while an update replaces them, a few at a time; other processes.
_REPLICA_MB, _UPDATE, _OTHERS_MB = 98, 1.02, 1500
_MOST_CONTROLLER = 5.0  # per cent of a core
_STEP = 20  # replicas that start at the same time
_POLL_S, _CALL_S, _BEAT_S, _BEATS, _STREAMS = 2.0, 60.0, 0.1, 30, 3
_END_S = 120.0


class OutOfTime(Exception):
    """The benchmark took longer than its limit."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The figures of one change.

    Attributes:
        change: The change.
        seconds: Its duration.
        calls: Calls that ended meanwhile.
        failed: Status → number of calls that ended with another one than OK.
        cpu: Process → CPU time in per cent of a core.
    """

    change: str
    seconds: float
    calls: int
    failed: dict[str, int]
    cpu: dict[str, float]


class Load:
    """Calls both applications from another thread until it is stopped.

    Args:
        port: Port of Envoy.
        rate: Unary calls a second; a third of them by the application that calls the other one.
    """

    def __init__(self, port: int, rate: float) -> None:
        self._address, self._interval_s = f"127.0.0.1:{port}", 1 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call()))
        #: Status → calls.
        self.ended: Counter[str] = Counter()
        #: First details of each status but OK.
        self.details: dict[str, str] = {}

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _call(self) -> None:
        channels = [grpc.aio.insecure_channel(self._address) for _ in range(4)]
        tasks = [asyncio.create_task(self._repeat_stream(channel)) for channel in channels[:_STREAMS]]
        number, due = 0, time.monotonic()
        while not self._stop.is_set():
            method, application = ("ThroughHandle", CALLER) if number % 3 == 0 else ("Unary", MANY)
            tasks.append(asyncio.create_task(self._unary(channels[number % 4], method, application)))
            tasks = [task for task in tasks if not task.done()]
            number, due = number + 1, due + self._interval_s
            await asyncio.sleep(due - time.monotonic())
        await asyncio.gather(*tasks)
        for channel in channels:
            await channel.close()

    async def _unary(self, channel: grpc.aio.Channel, method: str, application: str) -> None:
        call: Any = channel.unary_unary(f"/bench.Bench/{method}", Ask.SerializeToString, Payload.FromString)
        with self._count():
            answer = await call(Ask(name="Ada"), metadata=(("application", application),), timeout=_CALL_S)
            if answer.greeting != "Hello Ada":
                raise ValueError(f"another answer came back: {answer}")

    async def _repeat_stream(self, channel: grpc.aio.Channel) -> None:
        while not self._stop.is_set():
            with self._count():
                await self._stream(channel)

    async def _stream(self, channel: grpc.aio.Channel) -> None:
        async def messages() -> AsyncIterator[Payload]:
            for number in range(_BEATS):
                yield Payload(greeting=str(number))
                await asyncio.sleep(_BEAT_S)

        call: Any = channel.stream_stream("/bench.Bench/PingPong", Payload.SerializeToString, Payload.FromString)
        replies = call(messages(), metadata=(("application", MANY),), timeout=_CALL_S)
        received = [reply.greeting async for reply in replies]
        if received != [str(number) for number in range(_BEATS)]:
            raise ValueError(f"a stream ended after {len(received)} messages")

    @contextlib.contextmanager
    def _count(self) -> Any:
        status, details = "OK", ""
        try:
            yield
        except grpc.RpcError as error:
            status, details = error.code().name, str(error.details())
        except ValueError as error:
            status, details = "another answer", str(error)
        self.ended[status] += 1
        if status != "OK":
            self.details.setdefault(status, details)


class World:
    """The cluster, and the changes to it.

    Args:
        deadline: Monotonic time at which it gives up.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._version = 1
        self._replicas = 0
        self.port = free_port()
        sdk.start(sdk.GrpcOptions(port=self.port))
        self.scale(1)
        sdk.run(Caller.bind(), name=CALLER)
        self.ingress = processes_of(os.getpid(), _INGRESS)

    def scale(self, replicas: int) -> None:
        """Change the number of replicas, and wait until all are as wanted."""
        self._replicas = replicas
        self._deploy(lambda pids: True)

    def grow(self, replicas: int) -> None:
        """Add replicas, a few at a time: Ray starts the processes of all new ones at once."""
        for number in range(min(_STEP, replicas), replicas, _STEP):
            self.scale(number)
        self.scale(replicas)

    def redeploy(self) -> None:
        """Replace every replica, and wait until all are new."""
        before = set(self.pids())
        self._version += 1
        self._deploy(before.isdisjoint)

    def pids(self) -> list[int]:
        """Return the process ids of the replicas."""
        return processes_of(os.getpid(), _REPLICAS)["replica"]

    def _deploy(self, is_new: Callable[[list[int]], bool]) -> None:
        config = {
            "name": MANY,
            "route_prefix": None,
            "import_path": "tests.benchmarks.many_replicas_apps:build",
            "args": {"version": str(self._version)},
            "deployments": [{"name": "Bench", "num_replicas": self._replicas}],
        }
        # `serve deploy` ends in this call. It can change the number of replicas without replacing them.
        client: Any = serve.context._get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate({"applications": [config]}), _blocking=False)
        while not (self._is_routed() and len(pids := self.pids()) == self._replicas and is_new(pids)):
            if time.monotonic() > self._deadline:
                raise OutOfTime(f"not every replica was as wanted in time: {sdk.status()}")
            time.sleep(_POLL_S)

    def _is_routed(self) -> bool:
        try:
            status = sdk.status()
        except ClusterError as error:  # processes that start keep every core busy; calls that fail are counted
            print(error, file=sys.stderr, flush=True)
            return False
        for application in status.applications:
            if application.name == MANY and application.deployments:  # Ray Serve may still be building it
                (deployment,) = application.deployments
                return deployment.replicas == len(deployment.endpoints) == self._replicas
        return False


def measure(replicas: int, rate: float, deadline: float) -> dict[str, Any]:
    """Run the phases, and return the figures.

    Raises:
        OutOfTime: The deadline has passed.
    """
    world = World(deadline)
    phases: list[Phase] = []
    with Load(world.port, rate) as load:

        def run(change: str, act: Callable[[], object]) -> None:
            began, ended = time.monotonic(), Counter(load.ended)
            used = {name: cpu_seconds(pids) for name, pids in world.ingress.items()}
            act()
            seconds, calls = time.monotonic() - began, load.ended - ended
            cpu = {name: 100 * (cpu_seconds(pids) - used[name]) / seconds for name, pids in world.ingress.items()}
            cpu = {name: round(share, 1) for name, share in cpu.items()}
            failed = {status: number for status, number in calls.items() if status != "OK"}
            phases.append(Phase(change, round(seconds, 1), calls.total(), failed, cpu))
            print(_row(phases[-1]), flush=True)

        print("\n".join(_HEAD), flush=True)
        run("one replica", lambda: time.sleep(10))
        run(f"1 → {replicas} replicas", lambda: world.grow(replicas))
        run(f"{replicas} replicas", lambda: time.sleep(30))
        memory = {name: round(memory_mb(pids), 1) for name, pids in world.ingress.items()}
        pids = world.pids()
        memory["replica"] = round(memory_mb(pids) / len(pids), 1)
        run(f"all {replicas} replaced", world.redeploy)
        run(f"{replicas} → 1 replica", lambda: world.scale(1))
        # Streams that began before the last replica left have ended by then.
        run("one replica again", lambda: time.sleep(10))
    survived = world.ingress == processes_of(os.getpid(), _INGRESS)
    return {
        "replicas": replicas,
        "phases": [asdict(phase) for phase in phases],
        "memory_mb": memory,
        "details": load.details,
        "no process of the ingress was restarted": survived,
    }


_COLUMNS = ("seconds", "calls", "failed", *(f"{name}, % of a core" for name in _INGRESS))
_HEAD = (f"| change | {' | '.join(_COLUMNS)} |", f"| --- {'| --- ' * len(_COLUMNS)}|")


def _row(phase: Phase) -> str:
    failed = ", ".join(f"{number} {status}" for status, number in phase.failed.items()) or "0"
    cells = [phase.change, f"{phase.seconds:.0f}", f"{phase.calls:,}", failed, *map(str, phase.cpu.values())]
    return f"| {' | '.join(cells)} |"


def _free_mb() -> int:
    """Return the memory that processes can still get (proc(5), meminfo, MemAvailable)."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) // 1024


def _end(folder: str) -> list[int]:
    """End everything that was started, and return the processes that had to be killed."""
    try:
        if serve.context._get_global_client(raise_if_no_controller_running=False) is not None:
            sdk.shutdown()
    finally:
        ray.shutdown()
    deadline = time.monotonic() + 30
    while (left := tree_of(os.getpid())[1:]) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):  # this process has adopted those whose parents ended first
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def _give_up() -> None:
    print("the benchmark does not end; killing it", file=sys.stderr, flush=True)
    os._exit(3)


def main() -> int:
    """Run the benchmark, and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=200, help="replicas of the deployment (200)")
    parser.add_argument("--rate", type=float, default=60, help="unary calls a second (60)")
    parser.add_argument("--limit", type=float, default=1200, metavar="SECONDS", help="time limit (1200)")
    parser.add_argument("--save", type=Path, help="file for the figures, in addition to the output")
    arguments = parser.parse_args()
    wanted, free = int(arguments.replicas * _REPLICA_MB * _UPDATE + _OTHERS_MB), _free_mb()
    if free < wanted:
        print(
            f"{arguments.replicas} replicas need {wanted} MB, and {free} MB are free: set --replicas", file=sys.stderr
        )
        return 2
    watchdog = threading.Timer(arguments.limit + _END_S, _give_up)
    watchdog.daemon = True
    watchdog.start()
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="many-", ignore_cleanup_errors=True) as folder:
        start_ray(folder)
        try:
            figures = measure(arguments.replicas, arguments.rate, time.monotonic() + arguments.limit)
        except OutOfTime as error:
            print(error, file=sys.stderr)
            return 3
        finally:
            left = _end(folder)
    text = json.dumps({**figures, "killed at the end": len(left)}, indent=2)
    if arguments.save is not None:
        arguments.save.write_text(text + "\n")
    print(text)
    phases: list[dict[str, Any]] = figures["phases"]
    most = max(phase["cpu"]["controller"] for phase in phases)
    failed = sum(sum(phase["failed"].values()) for phase in phases)
    print(f"{failed} calls failed; the controller used at most {most:.1f} % of a core")
    return 1 if failed or most > _MOST_CONTROLLER else 0


if __name__ == "__main__":
    sys.exit(main())

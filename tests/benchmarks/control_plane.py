"""Measure the CPU time of one change in the control plane, by part, without Ray.

    .venv/bin/python -m tests.benchmarks.control_plane
    .venv/bin/python -m tests.benchmarks.control_plane --before TREE    # next to another tree, such as a git worktree

A change is a replica that leaves and comes back: the figures are for one of the two. Each tree runs in a process of its
own, and all figures of one invocation are from one run.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sdk._ingress.registry import Registry, Replica
from sdk._xds.listener import ListenerConfig
from sdk._xds.resources import build_resources, check_resources
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot

_HERE = Path(__file__).resolve()
_SIZES = ((10, 1), (1_000, 1), (10_000, 1), (1_000, 1_000), (10_000, 1_000))
_NODES = 500


def _replica(number: int, applications: int) -> Replica:
    application = f"app-{number % applications}"
    node = number % _NODES
    endpoint = Endpoint(
        f"replica-{number:05}",
        f"10.0.{node // 250}.{node % 250 + 1}",
        4000 + number // _NODES,
        f"node-{node}",
        f"s{number}",
    )
    return Replica(application, "Model", ("bench.v1.Model",), endpoint, "digest")


def _table(replicas: list[Replica]) -> Snapshot:
    endpoints: dict[str, list[Endpoint]] = {}
    for replica in replicas:
        endpoints.setdefault(replica.application, []).append(replica.endpoint)
    applications = (
        Application(name, (Deployment("Model", ("bench.v1.Model",), tuple(sorted(found)), "digest"),))
        for name, found in sorted(endpoints.items())
    )
    return Snapshot(1, tuple(applications))


def _ms(work: Callable[[], object], rounds: int) -> float:
    """Return the least CPU time of one round in milliseconds: other load on the machine only adds to it."""
    times = []
    for _ in range(rounds):
        start = time.process_time_ns()
        work()
        times.append(time.process_time_ns() - start)
    return min(times) / 1e6


def _measure(size: int, applications: int) -> dict[str, float]:
    replicas = [_replica(number, applications) for number in range(size)]
    registry = Registry(lease_s=1e9, first_version=1)
    registry.adopt(_table(replicas))
    for replica in replicas[: max(1, size // 1_000)]:
        registry.register(replica, b"")
    changing = replicas[size // 2]

    def change() -> None:
        registry.deregister(changing.endpoint.replica_id)
        registry.register(changing, b"")

    figures = {"registry_ms": _ms(change, 30 if size < 10_000 else 8) / 2}
    table = registry.snapshot
    data = pickle.dumps(table)
    config = ListenerConfig(host="127.0.0.1", port=9000, fallback_socket="/run/fallback.sock")
    figures["bytes"] = len(data)
    figures["pickle_ms"] = _ms(lambda: pickle.dumps(table), 3)
    figures["unpickle_ms"] = _ms(lambda: pickle.loads(data), 3)
    figures["resources_ms"] = _ms(lambda: check_resources(build_resources(table, config)), 2)
    return figures


def _register_all(size: int) -> float:
    """Return the CPU seconds to register replicas of one application one after another."""
    registry = Registry(lease_s=1e9, first_version=1)
    replicas = [_replica(number, 1) for number in range(size)]

    def register_all() -> None:
        for replica in replicas:
            registry.register(replica, b"")

    return _ms(register_all, 1) / 1e3


def _run(tree: Path, registered: int) -> dict[str, dict[str, float]]:
    """Measure a tree, in a process that imports the SDK from there."""
    code = f"import runpy, sys; sys.path.insert(0, {str(tree)!r}); sys.argv[1:] = ['--one', '{registered}']; "
    code += f"runpy.run_path({str(_HERE)!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, dict[str, float]] = json.loads(result.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another tree to measure, before this one")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        figures = {f"{size} replicas, {apps} applications": _measure(size, apps) for size, apps in _SIZES}
        figures[f"registering {arguments.one} replicas"] = {"cpu_s": _register_all(arguments.one)}
        print(json.dumps(figures))
        return
    runs = {}
    if arguments.before is not None:
        runs["before"] = _run(arguments.before.resolve(), 1_000)  # 10,000 took over a minute
    runs["after"] = _run(_HERE.parents[2], 10_000)
    print(json.dumps(runs, indent=2))


if __name__ == "__main__":
    main()

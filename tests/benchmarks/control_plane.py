"""Measure what a change costs the control plane, by part, without Ray.

    .venv/bin/python -m tests.benchmarks.control_plane --save out.json --chart out.png
    .venv/bin/python -m tests.benchmarks.control_plane --before TREE    # next to another tree, such as a git worktree

A change is a replica that leaves, or comes back. The registry, what is sent, the proxy's resources and its ADS server
are the real ones, with one real Envoy; other proxies are simulated by what the controller does for each. Each tree runs
in a separate process, and all figures of one invocation are from one run. All endpoints are loopback addresses on
which nobody listens, and their health checks are left out: they would cost Envoy more than what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sdk._gen import envoy_pb2 as pb
from sdk._ingress.registry import ProxyState, Registry, Replica, WatchAnswer
from sdk._xds import packing
from sdk._xds import resources as xds
from sdk._xds.packing import CLUSTER_TYPE
from sdk._xds.snapshot import Endpoint, Snapshot
from tests.support.envoy_rig import rig

_HERE = Path(__file__).resolve()
_SIZES = ((10, 1), (1_000, 1), (10_000, 1), (1_000, 1_000), (10_000, 1_000))
_PROXIES = (1, 100, 500)
_NODES = 500
_TICKS = os.sysconf("SC_CLK_TCK")
_TIMEOUT_S = 120

# The tree before has one function for both.
_pack = getattr(packing, "pack_resource", packing.pack)

try:
    from sdk._ingress.publication import Acknowledgements, Publication, apply_update
except ImportError:  # the tree before: each proxy gets the whole table
    Publication = None  # type: ignore[assignment,misc]


def _replica(number: int, applications: int) -> Replica:
    node = number % _NODES
    endpoint = Endpoint(
        f"replica-{number:05}",
        f"127.1.{node // 250}.{node % 250 + 1}",
        4000 + number // _NODES,
        f"n-{node}",
        f"s{number}",
    )
    return Replica(f"app-{number % applications}", "Model", ("bench.v1.Model",), endpoint, "digest")


def _ms(work: Callable[[], object], rounds: int) -> float:
    """Return the least CPU time of one round in milliseconds: other load on the machine only adds to it."""
    times = []
    for _ in range(rounds):
        start = time.process_time_ns()
        work()
        times.append(time.process_time_ns() - start)
    return min(times) / 1e6


class _ProxySide:
    """The resources of one proxy, built as the tree builds them."""

    def __init__(self) -> None:
        builder = getattr(xds, "ResourceBuilder", None)
        self._builder = builder("n-1") if builder is not None else None
        self._stripped: tuple[Any, Mapping[str, Any]] = (None, {})

    def build(self, table: Any, config: Any) -> Any:
        """Return the resources of a table, checked."""
        if self._builder is not None:
            return self._builder.build(table, config)
        built = xds.build_resources(table.for_node("n-1"), config)
        xds.check_resources(built)
        return built

    def without_health_checks(self, resources: Any) -> Any:
        """Return resources with which Envoy does not connect to the replicas. Not measured."""
        known, stripped = self._stripped
        clusters = resources.by_type[CLUSTER_TYPE]
        if known is not clusters and known != clusters:
            stripped = {}
            for name, packed in clusters.items():
                cluster = pb.Cluster.FromString(packed.value)
                cluster.ClearField("health_checks")
                stripped[name] = _pack(cluster)
        self._stripped = clusters, stripped
        by_type = {**resources.by_type, CLUSTER_TYPE: stripped}
        return xds.Resources(by_type, **({"is_checked": True} if self._builder is not None else {}))


def _send(registry: Registry, publication: Any, held: int) -> bytes:
    """Return the answer that a proxy gets, as the controller sends it."""
    if publication is None:
        return pickle.dumps(registry.snapshot)
    return pickle.dumps(WatchAnswer(publication.update_for(held)))


def _take(answer: bytes, table: Snapshot | None) -> Any:
    if Publication is None:
        return pickle.loads(answer)
    update = pickle.loads(answer).update
    return apply_update(update, table)


def _report_ms(registry: Registry, number: int) -> float:
    """Return the CPU time of the reports of all proxies, while one caller waits for them."""
    for proxy in range(number):
        registry.report(ProxyState(f"p{proxy}", f"n-{proxy}", "127.0.0.1:9000", version=1))
    version = registry.snapshot.version

    def report() -> None:
        loop = asyncio.new_event_loop()
        waiting = Acknowledgements(registry.is_acknowledged) if Publication is not None else None
        if waiting is not None:
            waiting.add(version, loop.create_future())
        for proxy in range(number):
            registry.report(ProxyState(f"p{proxy}", f"n-{proxy}", "127.0.0.1:9000", version=version))
            if waiting is not None:
                waiting.settle()
            else:
                registry.is_acknowledged(version)
        loop.close()

    return _ms(report, 3)


def _envoy_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_mb(pid: int | str) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _with_envoy(tables: tuple[Snapshot, Snapshot], more: Snapshot, rounds: int) -> dict[str, float]:
    """Measure a proxy with a real Envoy: all of a table, changes of it, and one more application."""
    figures, side = {}, _ProxySide()
    async with rig() as it:

        async def publish(table: Any) -> tuple[float, float, float]:
            cpu, built_s = time.process_time(), time.perf_counter()
            built = side.build(table, it.config)
            build_cpu, built_s = time.process_time() - cpu, time.perf_counter() - built_s
            resources = side.without_health_checks(built)
            envoy, cpu, began = _envoy_cpu_s(it.process.pid), time.process_time(), time.perf_counter()
            await asyncio.wait_for(it.ads.publish(resources), _TIMEOUT_S)
            send_cpu, acked_s = time.process_time() - cpu, time.perf_counter() - began + built_s
            return (build_cpu + send_cpu) * 1e3, (_envoy_cpu_s(it.process.pid) - envoy) * 1e3, acked_s * 1e3

        cold = await publish(tables[0])
        figures["cold_proxy_ms"], figures["cold_envoy_ms"], figures["cold_acked_ms"] = cold
        await publish(tables[1])
        changes = [await publish(tables[number % 2]) for number in range(rounds)]
        figures["proxy_ms"] = min(change[0] for change in changes)
        figures["envoy_ms"] = sum(change[1] for change in changes) / rounds  # the kernel counts in ticks
        figures["acked_ms"] = sorted(change[2] for change in changes)[rounds // 2]
        added = await publish(more)
        figures["new_application_proxy_ms"], figures["new_application_envoy_ms"], _ = added
        figures["proxy_mb"], figures["envoy_mb"] = _rss_mb("self"), _rss_mb(it.process.pid)
    return figures


def _measure(size: int, applications: int) -> dict[str, float]:
    replicas = [_replica(number, applications) for number in range(size)]
    registry = Registry(lease_s=1e9, first_version=1)
    figures: dict[str, float] = {"register_all_s": _ms(lambda: _register(registry, replicas), 1) / 1e3}
    changing = replicas[size // 2]
    several = replicas[:: max(1, size // 20)]

    def change() -> None:
        for replica in several:
            registry.deregister(replica.endpoint.replica_id)
            registry.register(replica, b"")

    figures["registry_ms"] = _ms(change, 10) / 2 / len(several)
    whole = registry.snapshot
    registry.deregister(changing.endpoint.replica_id)
    less = registry.snapshot
    publication = None if Publication is None else Publication()
    if publication is not None:
        publication.add(whole)
        publication.add(less)

    def first_answer() -> bytes:
        if publication is not None:
            publication.add(less)  # forgets what is pickled
        return _send(registry, publication, whole.version)

    answer = first_answer()
    figures["bytes"] = len(answer)
    figures["publish_ms"] = _ms(first_answer, 5)
    figures["send_ms"] = _ms(lambda: _send(registry, publication, whole.version), 5)
    figures["take_ms"] = _ms(lambda: _take(answer, whole), 5)
    for number in _PROXIES:
        figures[f"controller_ms_{number}"] = (
            figures["registry_ms"]
            + figures["publish_ms"]
            + (number - 1) * figures["send_ms"]
            + _report_ms(registry, number)
        )
    registry.register(changing, b"")
    registry.register(Replica("new", "Model", ("bench.v1.New",), Endpoint("new", "127.1.9.9", 4000, "n-1")), b"")
    figures.update(asyncio.run(_with_envoy((whole, less), registry.snapshot, 10)))
    figures["whole_bytes"] = len(pickle.dumps(whole))
    restarted = Registry(lease_s=1e9, first_version=10)
    restarted.adopt(whole)
    figures["adopt_first_ms"] = _ms(lambda: Registry(lease_s=1e9, first_version=10).adopt(whole), 1)
    figures["adopt_next_ms"] = _ms(lambda: restarted.adopt(pickle.loads(pickle.dumps(whole))), 3)
    figures["rolling_update_s"] = _ms(lambda: _roll(registry, replicas), 1) / 1e3
    return figures


def _register(registry: Registry, replicas: Iterable[Replica]) -> None:
    for replica in replicas:
        registry.register(replica, b"")


def _roll(registry: Registry, replicas: Iterable[Replica]) -> None:
    """Replace every replica by another one: the work of the registry, and of what one proxy gets, ten at a time."""
    publication = None if Publication is None else Publication()
    for number, replica in enumerate(replicas):
        endpoint = replica.endpoint
        new = Endpoint(f"new-{number:05}", endpoint.host, endpoint.port + 1000, endpoint.node_id, f"new{number}")
        registry.register(Replica(replica.application, "Model", replica.services, new, "digest"), b"")
        registry.deregister(endpoint.replica_id)
        if number % 10 == 9:
            held = registry.snapshot.version
            if publication is not None:
                held = publication.version
                publication.add(registry.snapshot)
            _send(registry, publication, held)
            if publication is None and number > 100:
                return  # the tree before took over a minute: figures of 110 replicas


def _run(tree: Path) -> dict[str, dict[str, float]]:
    """Measure a tree, in processes that import the SDK from there, one for each size."""
    figures = {}
    for size, applications in _SIZES:
        code = (
            f"import runpy, sys; sys.path.insert(0, {str(tree)!r}); sys.argv[1:] = ['--one', '{size},{applications}']; "
        )
        code += f"runpy.run_path({str(_HERE)!r}, run_name='__main__')"
        result = subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, stdout=subprocess.PIPE, text=True)
        figures[f"{size} replicas, {applications} applications"] = json.loads(result.stdout)
    return figures


def _draw(runs: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Draw the cost of a change with the number of replicas of one application, before and after."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = {"controller_ms_500": "controller, with 500 proxies", "proxy_ms": "proxy", "envoy_ms": "Envoy"}
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    sizes = [size for size, applications in _SIZES if applications == 1]
    for (name, label), colour in zip(parts.items(), ("#3b6ea5", "#c07830", "#777777"), strict=True):
        for run, style in (("before", "--"), ("after", "-")):
            if run in runs:
                # The kernel counts Envoy's time in ticks: a change of ten replicas is less than one.
                values = [max(runs[run][f"{size} replicas, 1 applications"][name], 0.1) for size in sizes]
                axes.plot(sizes, values, style, marker="o", color=colour, label=f"{label}, {run}")
    axes.set(xscale="log", yscale="log", xlabel="replicas of one application", ylabel="CPU ms for one change")
    axes.legend(fontsize=8)
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another tree to measure, before this one")
    parser.add_argument("--save", type=Path, help="file for the figures, in addition to the output")
    parser.add_argument("--chart", type=Path, help="file for the chart of growth")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        size, applications = map(int, arguments.one.split(","))
        print(json.dumps({name: round(figure, 4) for name, figure in _measure(size, applications).items()}))
        return
    runs = {}
    if arguments.before is not None:
        runs["before"] = _run(arguments.before.resolve())
    runs["after"] = _run(_HERE.parents[2])
    text = json.dumps(runs, indent=2)
    if arguments.save is not None:
        arguments.save.write_text(text + "\n")
    if arguments.chart is not None:
        _draw(runs, arguments.chart)
    print(text)


if __name__ == "__main__":
    main()

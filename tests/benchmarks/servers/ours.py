"""The SDK: Ray, Serve replicas, and Envoy. ``python ours.py FOLDER``.

Commands on the standard input, one JSON object a line, each answered like the first report:

    {"replicas": 2}   serve with this number of replicas
    {"apps": 100}     put so many applications into the routing table; all but one are entries for the same replica
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from typing import Any

import ray

import sdk
from sdk._ingress.cluster import HEARTBEAT_S, find_controller
from sdk._ingress.registry import Replica
from sdk._xds.snapshot import Endpoint
from tests.benchmarks.servers.cluster import start_ray
from tests.benchmarks.servers.reporting import commands, report
from tests.benchmarks.service import Bench
from tests.support.ports import free_port

FOLDER = sys.argv[1]


def deploy(replicas: int) -> None:
    """Deploy the service; returns when Envoy routes to it."""
    logs = {"enable_access_log": False}  # the other servers have none
    last = Bench.options(name="Last", expose=False, logging_config=logs).bind()
    downstream = Bench.options(name="Downstream", expose=False, logging_config=logs).bind(last)
    bench = Bench.options(num_replicas=replicas, logging_config=logs).bind(downstream)
    sdk.run(bench, name="bench", options=OPTIONS)


class Entries:
    """Applications that exist in the routing table only; they live as long as their leases are renewed."""

    def __init__(self) -> None:
        self._controller: Any = find_controller()
        self._entries: list[Replica] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def make(self, count: int, endpoint: Endpoint) -> None:
        """Add or remove applications until this number exists."""
        entries = [
            Replica(f"app-{i}", "Bench", ("bench.Bench",), endpoint._replace(replica_id=f"entry-{i}"))
            for i in range(count)
        ]
        with self._lock:
            gone = [entry.endpoint.replica_id for entry in self._entries[count:]]
            new, self._entries = entries[len(self._entries) :], entries
        ray.get([self._controller.register.remote(entry, b"", 60.0, OPTIONS) for entry in new])
        ray.get([self._controller.deregister.remote(replica_id, 60.0) for replica_id in gone])

    def _renew(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with self._lock:
                ids = [entry.endpoint.replica_id for entry in self._entries]
            ray.get([self._controller.renew.remote(replica_id, OPTIONS) for replica_id in ids])


OPTIONS = sdk.GrpcOptions(port=free_port())


def say() -> None:
    """Report the server as it is now."""
    report(OPTIONS.port, {"replica": r"^ray::ServeReplica:bench:", "Envoy": r"^\S*envoy .*--config-path"})


def main() -> None:
    """Serve until the benchmark closes the standard input."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    start_ray(FOLDER)
    deploy(1)
    say()
    entries = Entries()
    for command in commands():
        if "replicas" in command:
            deploy(command["replicas"])
        if "apps" in command:
            (deployment,) = (d for d in sdk.status().applications[0].deployments if d.name == "Bench")
            host, _, port = deployment.endpoints[0].rpartition(":")
            entries.make(command["apps"] - 1, Endpoint("", host, int(port)))
        say()
    # Ray Serve's controller ends itself, which Ray reports to this process as a failed task.
    with contextlib.redirect_stdout(io.StringIO()):
        sdk.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()

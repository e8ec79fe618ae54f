"""Instructions of Envoy for a gRPC call, with the other protocols and without them.

Run ``python -m tests.benchmarks.envoy_instructions``. For each row, an Envoy with one worker runs under valgrind's
callgrind twice, once with more calls: a call costs what more calls count more. callgrind counts the instructions of
each thread, so that other work on the machine changes nothing. It takes five minutes, and needs Debian's ``valgrind``
and ``nghttp2-client``.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdk._gen import envoy_pb2 as pb
from sdk._xds.listener import LISTENER_NAME, ROUTE_CONFIG_NAME
from sdk._xds.lua_filter import path_filter
from sdk._xds.packing import LISTENER_TYPE, ROUTE_TYPE, pack_resource
from sdk._xds.resources import Resources, build_resources
from sdk._xds.snapshot import Application, JsonRoute
from tests.support.envoy_rig import rig

if TYPE_CHECKING:
    from sdk._xds.snapshot import Snapshot
    from tests.support.envoy_rig import Rig

FEW, MANY = 200, 1200
SERVICE = "demo.Greeter"
ROWS = (
    "gRPC only",
    "all protocols, the default",
    "all protocols, 20 routes of google.api.http",
    "all protocols, CORS for pages of another origin",
)
PAGES = ("/docs", "/console")
_GRPC_PREFIXES = ("/ray.serve.", "/grpc.", "/sdk.replica/")
_ROUTES = tuple(JsonRoute(f"/v1/things{i}/", "GET", f"/v1/things{i}/[^/]+", f"{SERVICE}/Get") for i in range(20))


def configurations(rig: Rig) -> dict[str, Resources]:
    """Return the configuration of each row."""
    snapshot = rig.snapshot({"one": {"Greeter": ([SERVICE], ["a"])}})
    config = replace(rig.config, pages=PAGES)
    cors = replace(config, cors_origins=("https://app.example.com",))
    default = build_resources(snapshot, config)
    with_routes = build_resources(routed(snapshot), config)
    return dict(zip(ROWS, (only_grpc(default), default, with_routes, build_resources(snapshot, cors)), strict=True))


def routed(snapshot: Snapshot) -> Snapshot:
    """Return the routing table with routes of ``google.api.http``."""
    (application,) = snapshot.applications
    (deployment,) = application.deployments
    changed = Application(application.name, (replace(deployment, http_routes=_ROUTES),))
    return replace(snapshot, applications=(changed,))


def only_grpc(resources: Resources) -> Resources:
    """Return the resources without anything that other protocols need."""
    listener = pb.Listener.FromString(resources.by_type[LISTENER_TYPE][LISTENER_NAME].value)
    packed = listener.filter_chains[0].filters[0].typed_config
    manager = pb.HttpConnectionManager.FromString(packed.value)
    manager.codec_type = pb.HttpConnectionManager.HTTP2
    manager.ClearField("http_protocol_options")
    for path in [each for each in manager.http_filters if each.name == path_filter("").name]:
        manager.http_filters.remove(path)
    mappers = manager.local_reply_config.mappers
    for mapper in [each for each in mappers if _is_of_other_protocols(each)]:
        mappers.remove(mapper)
    packed.value = manager.SerializeToString()
    routes = pb.RouteConfiguration.FromString(resources.by_type[ROUTE_TYPE][ROUTE_CONFIG_NAME].value)
    prefixes = routes.virtual_hosts[0].matcher.matcher_tree.prefix_match_map.map
    for prefix in [each for each in prefixes if not each.startswith(_GRPC_PREFIXES)]:
        del prefixes[prefix]
    changed = {
        LISTENER_TYPE: {LISTENER_NAME: pack_resource(listener)},
        ROUTE_TYPE: {ROUTE_CONFIG_NAME: pack_resource(routes)},
    }
    return Resources({**resources.by_type, **changed})


def _is_of_other_protocols(mapper: pb.ResponseMapper) -> bool:
    body = mapper.body_format_override
    return body.HasField("json_format") or body.content_type == "application/grpc-web+proto"


async def count(row: str, calls: int, folder: Path) -> int:
    """Return the instructions of the worker of an Envoy that serves these calls, from its start to its end.

    Args:
        row: Name of the configuration.
        calls: Number of calls, on one connection, one after another.
        folder: An empty folder for the output of callgrind.
    """
    callgrind = ("valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={folder}/counts")
    body = folder / "body"
    body.write_bytes(bytes(5))
    async with rig("a", under=callgrind) as it:
        await it.upstreams["a"].only_on_a_unix_socket()
        await it.ads.publish(configurations(it)[row])
        headers = ("-Hcontent-type: application/grpc", "-Hte: trailers")
        command = ["h2load", f"-n{calls}", "-c1", "-m1", "-t1", f"-d{body}", *headers]
        output = await _run(*command, f"http://127.0.0.1:{it.port}/{SERVICE}/SayHello")
        assert f"{calls} succeeded, 0 failed" in output, output
        it.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(it.process.wait)
    # The worker works most behind the main thread, which is the first, and starts and configures Envoy.
    return max(_total(each) for each in folder.glob("counts-*") if each.name != "counts-01")


def _total(dump: Path) -> int:
    """Return the instructions in a file of callgrind."""
    (line,) = (line for line in dump.read_text().splitlines() if line.startswith("totals:"))
    return int(line.split()[1])


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def main() -> None:
    """Print the table."""
    first = 0.0
    for row in ROWS:
        counts = []
        for calls in (FEW, MANY):
            with tempfile.TemporaryDirectory(prefix="sdk-t-") as folder:
                counts.append(await count(row, calls, Path(folder)))
        per_call = (counts[1] - counts[0]) / (MANY - FEW)
        first = first or per_call
        print(f"| {row} | {per_call:,.0f} | {per_call / first - 1:+.2%} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

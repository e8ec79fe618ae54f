"""Instructions of Envoy for a gRPC call, with the other protocols and without them.

Run ``python -m tests.benchmarks.envoy_instructions``. An Envoy with one worker runs under valgrind's callgrind, and
gets the configuration of each row; a call costs what more calls count more. callgrind counts the instructions of each
thread, so that other work on the machine changes nothing. It takes two minutes, and needs Debian's ``valgrind`` and
``nghttp2-client``. What the option ``access`` costs is counted in the same way by ``access_costs``.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from contextlib import asynccontextmanager
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
    from collections.abc import AsyncIterator, Sequence

    from sdk._xds.snapshot import Snapshot
    from tests.support.envoy_rig import Rig

FEW, MANY = 200, 1200
SERVICE = "demo.Greeter"
METHOD = f"{SERVICE}/SayHello"
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


class CountedEnvoy:
    """An Envoy with one worker under callgrind, which counts the instructions of each thread.

    Args:
        envoy: Envoy with its control plane and its replica.
        folder: The folder for the output of callgrind.
    """

    def __init__(self, envoy: Rig, folder: Path) -> None:
        self.envoy = envoy
        self._folder = folder
        self._dumps = 0

    async def per_call(self, resources: Resources, metadata: Sequence[tuple[str, str]] = (), streams: int = 1) -> float:
        """Return the worker's instructions for a call: what more calls on a connection count more.

        Args:
            resources: Envoy's configuration.
            metadata: Metadata of the calls.
            streams: Number of calls at a time.
        """
        await self.envoy.ads.publish(resources)
        await self._control("--instr=on")
        await load(self.envoy, FEW, metadata, streams)  # after it everything is compiled, and each cache full
        few, many = [await self._count(calls, metadata, streams) for calls in (FEW, MANY)]
        return (many - few) / (MANY - FEW)

    async def _count(self, calls: int, metadata: Sequence[tuple[str, str]], streams: int) -> int:
        await self._control("--zero")
        await load(self.envoy, calls, metadata, streams)
        await self._control("--dump")
        self._dumps += 1
        # The worker works most behind the main thread, which is the first, and configures Envoy.
        first = f"counts.{self._dumps}-01"
        return max(_total(each) for each in self._folder.glob(f"counts.{self._dumps}-*") if each.name != first)

    async def _control(self, command: str) -> None:
        await _run("callgrind_control", command, str(self.envoy.process.pid))


@asynccontextmanager
async def counted_envoy() -> AsyncIterator[CountedEnvoy]:
    """Start Envoy under callgrind, which counts from the first call on."""
    with tempfile.TemporaryDirectory(prefix="sdk-t-") as folder:
        callgrind = ("valgrind", "--tool=callgrind", "--separate-threads=yes", "--instr-atstart=no")
        async with rig("a", under=(*callgrind, f"--callgrind-out-file={folder}/counts")) as envoy:
            await envoy.upstreams["a"].only_on_a_unix_socket()
            yield CountedEnvoy(envoy, Path(folder))


async def load(envoy: Rig, calls: int, metadata: Sequence[tuple[str, str]] = (), streams: int = 1) -> None:
    """Make calls on one connection.

    Args:
        envoy: The Envoy.
        calls: Number of calls.
        metadata: Their metadata.
        streams: Number of calls at a time.
    """
    body = envoy.folder / "body"
    body.write_bytes(bytes(5))
    fields = (("content-type", "application/grpc"), ("te", "trailers"), *metadata)
    headers = [f"-H{name}: {value}" for name, value in fields]
    command = ["h2load", f"-n{calls}", "-c1", f"-m{streams}", "-t1", f"-d{body}", *headers]
    output = await _run(*command, f"http://127.0.0.1:{envoy.port}/{METHOD}")
    assert f"{calls} succeeded, 0 failed" in output, output


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
    async with counted_envoy() as counted:
        for row, resources in configurations(counted.envoy).items():
            per_call = await counted.per_call(resources)
            first = first or per_call
            print(f"| {row} | {per_call:,.0f} | {per_call / first - 1:+.2%} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

"""Instructions of Envoy for a gRPC call, with the other protocols and without them.

Run ``python -m tests.benchmarks.envoy_instructions``. One Envoy with one worker runs under valgrind's callgrind, which
counts the instructions of each thread, so that other work on the machine changes nothing. It gets the configuration of
each row in turn, several times; each time h2load makes the calls on a connection of its own, one after another. A call
costs what more calls count more. It takes five minutes and needs Debian's ``valgrind`` and ``nghttp2-client``.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

from sdk._gen import envoy_pb2 as pb
from sdk._xds.listener import LISTENER_NAME, ROUTE_CONFIG_NAME
from sdk._xds.lua_filter import path_filter
from sdk._xds.packing import pack
from sdk._xds.resources import LISTENER_TYPE, ROUTE_TYPE, Resources, build_resources
from sdk._xds.snapshot import Application, JsonRoute
from tests.support.envoy_rig import rig

if TYPE_CHECKING:
    from pathlib import Path

    from sdk._xds.snapshot import Snapshot
    from tests.support.envoy_rig import Rig

FEW, MANY, ROUNDS = 100, 400, 5
SERVICE = "demo.Greeter"
PAGES = ("/docs", "/console")
_GRPC_PREFIXES = ("/ray.serve.", "/grpc.", "/sdk.replica/")
_ROUTES = tuple(JsonRoute(f"/v1/things{i}/", "GET", f"/v1/things{i}/[^/]+", f"{SERVICE}/Get") for i in range(20))


def configurations(rig: Rig) -> dict[str, Resources]:
    """Return the configuration of each row."""
    snapshot = rig.snapshot({"one": {"Greeter": ([SERVICE], ["a"])}})
    config = replace(rig.config, pages=PAGES)
    cors = replace(config, cors_origins=("https://app.example.com",))
    default = build_resources(snapshot, config)
    return {
        "gRPC only": only_grpc(default),
        "all protocols, the default": default,
        "all protocols, 20 routes of google.api.http": build_resources(with_routes(snapshot), config),
        "all protocols, CORS for pages of another origin": build_resources(snapshot, cors),
    }


def with_routes(snapshot: Snapshot) -> Snapshot:
    """Return the routing table with routes of ``google.api.http``."""
    (application,) = snapshot.applications
    (deployment,) = application.deployments
    routed = Application(application.name, (replace(deployment, http_routes=_ROUTES),))
    return replace(snapshot, applications=(routed,))


def only_grpc(resources: Resources) -> Resources:
    """Return the resources without anything that other protocols need."""
    listener = pb.Listener.FromString(resources.by_type[LISTENER_TYPE][LISTENER_NAME].value)
    packed = listener.filter_chains[0].filters[0].typed_config
    manager = pb.HttpConnectionManager.FromString(packed.value)
    manager.codec_type = pb.HttpConnectionManager.HTTP2
    manager.ClearField("http_protocol_options")
    filters = [each for each in manager.http_filters if each.name != path_filter("").name]
    mappers = [each for each in manager.local_reply_config.mappers if not _is_of_other_protocols(each)]
    assert len(mappers) < len(manager.local_reply_config.mappers)
    for repeated, kept in ((manager.http_filters, filters), (manager.local_reply_config.mappers, mappers)):
        del repeated[:]
        repeated.extend(kept)  # type: ignore[attr-defined]  # both are repeated fields
    packed.value = manager.SerializeToString()
    routes = pb.RouteConfiguration.FromString(resources.by_type[ROUTE_TYPE][ROUTE_CONFIG_NAME].value)
    prefixes = routes.virtual_hosts[0].matcher.matcher_tree.prefix_match_map.map
    for prefix in [each for each in prefixes if not each.startswith(_GRPC_PREFIXES)]:
        del prefixes[prefix]
    changed = {LISTENER_TYPE: {LISTENER_NAME: pack(listener)}, ROUTE_TYPE: {ROUTE_CONFIG_NAME: pack(routes)}}
    return Resources({**resources.by_type, **changed})


def _is_of_other_protocols(mapper: pb.ResponseMapper) -> bool:
    body = mapper.body_format_override
    return body.HasField("json_format") or body.content_type == "application/grpc-web+proto"


class Counter:
    """Counts the instructions of Envoy's worker.

    Args:
        pid: The process, which runs under callgrind.
        folder: Folder of callgrind's output.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid, self._folder = pid, folder

    async def of(self, rig: Rig, calls: int) -> int:
        """Return the instructions for a connection with these calls."""
        await self._control("zero")
        body = self._folder / "body"
        body.write_bytes(bytes(5))
        headers = ("-Hcontent-type: application/grpc", "-Hte: trailers")
        target = f"http://127.0.0.1:{rig.port}/{SERVICE}/SayHello"
        done = await _run("h2load", f"-n{calls}", "-c1", "-m1", "-t1", f"-d{body}", *headers, target)
        assert f"{calls} succeeded, 0 failed" in done, done
        for old in self._folder.glob("counts*"):
            old.unlink()
        await self._control("dump")
        # The worker works most: the main thread and the others have their timers only.
        return max(_total(each) for each in self._folder.glob("counts*"))

    async def _control(self, command: str) -> None:
        await _run("vgdb", f"--pid={self._pid}", command)


def _total(dump: Path) -> int:
    """Return the instructions in a file of callgrind."""
    (line,) = (line for line in dump.read_text().splitlines() if line.startswith(("totals:", "summary:")))
    return int(line.split()[1])


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def main(folder: Path) -> None:
    """Print the table."""
    valgrind = ("valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={folder}/counts")
    async with rig("a", under=valgrind) as it:
        await it.upstreams["a"].only_on_a_unix_socket()
        counter = Counter(it.process.pid, folder)
        rows = configurations(it)
        found: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(ROUNDS):
            for name, resources in rows.items():
                await it.ads.publish(resources)
                await counter.of(it, FEW)  # until the connections to the replica are open
                few, many = await counter.of(it, FEW), await counter.of(it, MANY)
                found[name].append((many - few) / (MANY - FEW))
        least = statistics.median(next(iter(found.values())))
        for name, counts in found.items():
            middle = statistics.median(counts)
            print(f"| {name} | {middle:,.0f} | {min(counts):,.0f} to {max(counts):,.0f} | {middle / least - 1:+.2%} |")


if __name__ == "__main__":
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(prefix="sdk-t-") as path:
        asyncio.run(main(Path(path)))

"""The order of what the server sends and when ``publish`` returns, with a scripted stream in Envoy's place."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from loops import PATIENCE_S

from sdk._gen import envoy_pb2 as pb
from sdk._xds.ads_server import AdsServer, ResourcesRejected
from sdk._xds.packing import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, type_url
from sdk._xds.resources import ListenerConfig, Resources, build
from sdk._xds.snapshot import Application, Deployment, Snapshot
from sdk.errors import IngressError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from loops import Run

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


def resources(*apps: str) -> Resources:
    applications = tuple(Application(app, (Deployment("D", (f"demo.{app}",)),)) for app in apps)
    return build(Snapshot(1, applications), ListenerConfig(fallback_socket="/tmp/none.sock"))


class ScriptedEnvoy:
    """An ADS stream that sends and reads what a test tells it to."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def ask(self, kind: str, *names: str, nonce: str = "", error: str = "") -> None:
        request = pb.DiscoveryRequest(type_url=kind, resource_names=names, response_nonce=nonce)
        if error:
            request.error_detail.message = error
        await self._call.write(request)

    async def read(self, kind: str) -> pb.DiscoveryResponse:
        response: pb.DiscoveryResponse = await asyncio.wait_for(self._call.read(), PATIENCE_S)
        assert response.type_url == kind
        return response

    async def take(self, kind: str, *names: str, error: str = "") -> set[str]:
        """Reads a response and answers it; returns the names of its resources."""
        response = await self.read(kind)
        await self.ask(kind, *names, nonce=response.nonce, error=error)
        messages = {type_url(m): m for m in (pb.Cluster, pb.Listener, pb.RouteConfiguration)}
        message = messages.get(kind, pb.ClusterLoadAssignment)
        parsed = [message.FromString(r.value) for r in response.resources]
        return {p.cluster_name if isinstance(p, pb.ClusterLoadAssignment) else p.name for p in parsed}

    async def start_up(self, *apps: str) -> None:
        """Subscribes to all types and takes a first configuration."""
        endpoints = [f"{app}#D" for app in apps]
        await self.ask(CLUSTERS)
        await self.take(CLUSTERS)
        if endpoints:
            await self.ask(ENDPOINTS, *endpoints)
            await self.take(ENDPOINTS, *endpoints)
        await self.ask(LISTENERS)
        await self.take(LISTENERS)
        await self.ask(ROUTES, "routes")
        await self.take(ROUTES, "routes")

    def leave(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def ads() -> AsyncIterator[tuple[AdsServer, Callable[[], ScriptedEnvoy]]]:
    folder = Path(tempfile.mkdtemp(prefix="ads", dir="/tmp"))
    server = AdsServer(str(folder / "s"))
    await server.start()
    channel = grpc.aio.insecure_channel(f"unix:{folder / 's'}", [("grpc.use_local_subchannel_pool", 1)])
    method: Any = channel.stream_stream(
        METHOD,
        request_serializer=pb.DiscoveryRequest.SerializeToString,
        response_deserializer=pb.DiscoveryResponse.FromString,
    )
    try:
        yield server, lambda: ScriptedEnvoy(method())
    finally:
        await channel.close(None)
        await server.stop()
        shutil.rmtree(folder)


def names(*apps: str) -> set[str]:
    return {"fallback", *(f"{app}#D{suffix}" for app in apps for suffix in ("", "#model"))}


def test_additions_come_first_and_removals_last(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, connect):
            envoy = connect()
            first = asyncio.create_task(server.publish(resources("a")))
            await envoy.start_up("a")
            await first
            second = asyncio.create_task(server.publish(resources("b")))
            # Like Envoy, acknowledge the clusters only once the new one has its endpoints.
            clusters = await envoy.read(CLUSTERS)
            assert {pb.Cluster.FromString(c.value).name for c in clusters.resources} == names("a", "b")
            await envoy.ask(ENDPOINTS, "a#D", "b#D", nonce="1")
            assert await envoy.take(ENDPOINTS, "a#D", "b#D") == {"b#D"}
            await envoy.ask(CLUSTERS, nonce=clusters.nonce)
            assert await envoy.take(ROUTES, "routes") == {"routes"}
            assert not second.done()
            assert await envoy.take(CLUSTERS) == names("b")
            await second
            await server.publish(resources("b"))

    run(scenario())


def test_publish_waits_for_an_envoy_that_then_gets_all(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, connect):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(server.publish(resources("a")), 0.05)
            older = asyncio.create_task(server.publish(resources("b")))
            newer = asyncio.create_task(server.publish(resources("b", "c")))
            await asyncio.sleep(0.02)
            assert not older.done()
            await connect().start_up("b", "c")
            await asyncio.gather(older, newer)

    run(scenario())


def test_waiting_publishes_become_one(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, connect):
            envoy = connect()
            first = asyncio.create_task(server.publish(resources()))
            await envoy.start_up()
            await first
            running = asyncio.create_task(server.publish(resources("a")))
            clusters = await envoy.read(CLUSTERS)
            waiting = [asyncio.create_task(server.publish(resources(*apps))) for apps in ("b", "c", "ad")]
            await envoy.ask(ENDPOINTS, "a#D")
            await envoy.take(ENDPOINTS, "a#D")
            await envoy.ask(CLUSTERS, nonce=clusters.nonce)
            await envoy.take(ROUTES, "routes")
            await running
            clusters = await envoy.read(CLUSTERS)
            assert {pb.Cluster.FromString(c.value).name for c in clusters.resources} == names("a", "d")
            await envoy.ask(ENDPOINTS, "a#D", "d#D", nonce="1")
            await envoy.take(ENDPOINTS, "a#D", "d#D")
            await envoy.ask(CLUSTERS, nonce=clusters.nonce)
            await envoy.take(ROUTES, "routes")
            await asyncio.gather(*waiting)

    run(scenario())


def test_refused_routes_are_taken_back(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, connect):
            envoy = connect()
            first = asyncio.create_task(server.publish(resources("a")))
            await envoy.start_up("a")
            await first
            second = asyncio.create_task(server.publish(resources("a", "b")))
            clusters = await envoy.read(CLUSTERS)
            await envoy.ask(ENDPOINTS, "a#D", "b#D", nonce="1")
            await envoy.take(ENDPOINTS, "a#D", "b#D")
            await envoy.ask(CLUSTERS, nonce=clusters.nonce)
            await envoy.take(ROUTES, "routes", error="no such thing")
            with pytest.raises(ResourcesRejected, match="no such thing") as caught:
                await second
            assert caught.value.type_url == ROUTES
            envoy.leave()
            while server.connections:
                await asyncio.sleep(0.01)
            # An Envoy that comes now gets the routes that were good, and every cluster that they need.
            envoy = connect()
            await envoy.ask(ROUTES, "routes")
            routes = await envoy.read(ROUTES)
            assert routes.resources[0] == resources("a").by_type[ROUTES]["routes"]
            await envoy.ask(ROUTES, "routes", nonce=routes.nonce)
            third = asyncio.create_task(server.publish(resources("a")))
            await envoy.ask(CLUSTERS)
            assert names("a") <= await envoy.take(CLUSTERS)
            third.cancel()

    run(scenario())


def test_nobody_waits_for_an_envoy_that_left(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, connect):
            stays, leaves = connect(), connect()
            first = asyncio.create_task(server.publish(resources()))
            await asyncio.gather(stays.start_up(), leaves.start_up())
            await first
            assert server.connections == 2
            second = asyncio.create_task(server.publish(resources("a")))
            clusters = await stays.read(CLUSTERS)
            await stays.ask(ENDPOINTS, "a#D")
            await stays.take(ENDPOINTS, "a#D")
            await stays.ask(CLUSTERS, nonce=clusters.nonce)
            await asyncio.sleep(0.05)
            assert not second.done()
            leaves.leave()
            await stays.take(ROUTES, "routes")
            await second
            assert server.connections == 1

    run(scenario())


def test_an_envoy_in_place_of_a_dead_one_has_settled_when_it_has_acknowledged_all(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, connect):
            envoy = connect()
            publish = asyncio.create_task(server.publish(resources("a")))
            await envoy.start_up("a")
            await publish
            await asyncio.wait_for(server.settled(), PATIENCE_S)
            server.disconnect()
            assert server.connections == 0
            settled = asyncio.create_task(server.settled())
            await asyncio.sleep(0.02)
            assert not settled.done(), "what a dead one acknowledged counts no more"
            second = connect()
            await second.start_up("a")
            await asyncio.wait_for(settled, PATIENCE_S)
            assert server.connections == 1

    run(scenario())


def test_before_the_first_publish_there_is_no_answer(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, connect):
            envoy = connect()
            await envoy.ask(CLUSTERS)
            await envoy.ask(LISTENERS)
            while not server.connections:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            publish = asyncio.create_task(server.publish(resources()))
            response = await envoy.read(CLUSTERS)
            assert response.nonce == "1", "the first response of this stream"
            assert response.resources
            publish.cancel()

    run(scenario())


def test_stop_ends_who_waits(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, _):
            waiting = asyncio.create_task(server.publish(resources()))
            await asyncio.sleep(0.02)
            await server.stop()
            with pytest.raises(IngressError, match="stopped"):
                await waiting
            with pytest.raises(IngressError, match="does not run"):
                await server.publish(resources())

    run(scenario())


def test_inconsistent_resources_never_leave(run: Run) -> None:
    async def scenario() -> None:
        async with ads() as (server, _):
            with pytest.raises(IngressError, match="inconsistent"):
                await server.publish(Resources({}))

    run(scenario())


def test_a_path_that_no_socket_can_have(run: Run) -> None:
    async def scenario() -> None:
        with pytest.raises(IngressError, match="107 bytes"):
            await AdsServer("/tmp/" + "x" * 103).start()
        with pytest.raises(IngressError, match="can't listen"):
            await AdsServer("/tmp/there-is-no-such-folder/s").start()

    run(scenario())


def test_a_rejection_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(ResourcesRejected(ROUTES, "no")))
    assert (error.type_url, error.reason, str(error)) == (ROUTES, "no", "Envoy refused RouteConfiguration: no")

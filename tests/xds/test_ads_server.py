"""Order of responses, and when ``publish`` returns, with a scripted ADS stream instead of Envoy."""

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

from sdk._gen import envoy_pb2 as pb
from sdk._xds import access_filters
from sdk._xds.ads_server import AdsServer, ResourcesRejected
from sdk._xds.packing import CLUSTER_TYPE, ENDPOINT_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE
from sdk._xds.resources import ListenerConfig, Resources, build_resources
from sdk._xds.snapshot import Application, Deployment, Snapshot
from sdk.access import Access, Limit
from sdk.errors import IngressError
from tests.support.loops import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable


FILTERS = tuple(access_filters.filter_configs(None, access_filters.KeyMaterial()))
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def resources(*apps: str) -> Resources:
    applications = tuple(Application(app, (Deployment("D", (f"demo.{app}",)),)) for app in apps)
    return build_resources(Snapshot(1, applications), ListenerConfig(fallback_socket="/tmp/none.sock"))


class ScriptedEnvoy:
    """ADS stream that a test scripts."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def ask(
        self,
        kind: str,
        *names: str,
        less: Iterable[str] = (),
        has: Iterable[str] = (),
        nonce: str = "",
        error: str = "",
    ) -> None:
        """Send a request that subscribes to names, and unsubscribes from others."""
        request = pb.DeltaDiscoveryRequest(
            type_url=kind,
            resource_names_subscribe=names,
            resource_names_unsubscribe=less,
            initial_resource_versions=dict.fromkeys(has, "1"),
            response_nonce=nonce,
        )
        if error:
            request.error_detail.message = error
        await self._call.write(request)

    async def read(self, kind: str) -> pb.DeltaDiscoveryResponse:
        response: pb.DeltaDiscoveryResponse = await asyncio.wait_for(self._call.read(), PATIENCE_S)
        assert response.type_url == kind
        return response

    async def take(self, kind: str, *names: str, error: str = "") -> set[str]:
        """Read a response, answer it, and subscribe to names. Return its resources; removed ones have a minus."""
        response = await self.read(kind)
        await self.ask(kind, *names, nonce=response.nonce, error=error)
        return {*(each.name for each in response.resources), *(f"-{name}" for name in response.removed_resources)}

    async def start_up(self, *apps: str) -> None:
        """Subscribe to all types and acknowledge a first configuration."""
        endpoints = [f"{app}#D" for app in apps]
        await self.ask(CLUSTER_TYPE)
        await self.take(CLUSTER_TYPE)
        if endpoints:
            await self.ask(ENDPOINT_TYPE, *endpoints)
            await self.take(ENDPOINT_TYPE)
        await self.ask(LISTENER_TYPE)
        await self.take(LISTENER_TYPE)
        await self.ask(FILTER_TYPE, *FILTERS)
        await self.take(FILTER_TYPE)
        await self.ask(ROUTE_TYPE, "routes")
        await self.take(ROUTE_TYPE)

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
        request_serializer=pb.DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=pb.DeltaDiscoveryResponse.FromString,
    )
    try:
        yield server, lambda: ScriptedEnvoy(method())
    finally:
        await channel.close(None)
        await server.stop()
        shutil.rmtree(folder)


def clusters(*apps: str) -> set[str]:
    return {f"{app}#D{suffix}" for app in apps for suffix in ("", "#model")}


async def test_additions_are_sent_first_and_removals_last() -> None:
    async with ads() as (server, connect):
        envoy = connect()
        first = asyncio.create_task(server.publish(resources("a")))
        await envoy.start_up("a")
        await first
        second = asyncio.create_task(server.publish(resources("b")))
        # Like Envoy, acknowledge the clusters only once the new one has its endpoints.
        added = await envoy.read(CLUSTER_TYPE)
        assert {each.name for each in added.resources} == clusters("b")
        assert not added.removed_resources
        await envoy.ask(ENDPOINT_TYPE, "b#D")
        assert await envoy.take(ENDPOINT_TYPE) == {"b#D"}
        await envoy.ask(CLUSTER_TYPE, nonce=added.nonce)
        assert await envoy.take(ROUTE_TYPE) == {"routes"}
        assert not second.done()
        assert await envoy.take(CLUSTER_TYPE) == {f"-{name}" for name in clusters("a")}
        assert await envoy.take(ENDPOINT_TYPE) == {"-a#D"}
        await second
        await server.publish(resources("b"))


async def test_filters_that_envoy_unsubscribes_from_are_not_waited_for() -> None:
    """Envoy does so when it has rejected their listener, as late as it likes."""
    changed = build_resources(
        Snapshot(1, (Application("a", (Deployment("D", ("demo.a",)),)),), access=Access(limits=(Limit(10),))),
        ListenerConfig(fallback_socket="/tmp/none.sock", port=9001),
    )
    async with ads() as (server, connect):
        envoy = connect()
        first = asyncio.create_task(server.publish(resources("a")))
        await envoy.start_up("a")
        await first
        second = asyncio.create_task(server.publish(changed))
        filters = await envoy.read(FILTER_TYPE)
        await envoy.ask(FILTER_TYPE, less=FILTERS, nonce=filters.nonce)
        await envoy.take(LISTENER_TYPE)
        await envoy.ask(FILTER_TYPE, *FILTERS)
        assert await envoy.take(FILTER_TYPE) == set(FILTERS)
        await envoy.take(ROUTE_TYPE)
        await second


async def test_endpoints_of_a_cluster_that_changes_are_sent_unasked() -> None:
    """Envoy warms the new version of the cluster until they arrive."""
    changed = build_resources(
        Snapshot(1, (Application("a", (Deployment("D", ("demo.a",)),)),)),
        ListenerConfig(fallback_socket="/tmp/none.sock", node_secrets="/tmp/none"),
    )
    async with ads() as (server, connect):
        envoy = connect()
        first = asyncio.create_task(server.publish(resources("a")))
        await envoy.start_up("a")
        await first
        second = asyncio.create_task(server.publish(changed))
        updated = await envoy.read(CLUSTER_TYPE)
        assert {each.name for each in updated.resources} == clusters("a")
        assert await envoy.take(ENDPOINT_TYPE) == {"a#D"}
        assert not second.done()
        await envoy.ask(CLUSTER_TYPE, nonce=updated.nonce)
        await second


async def test_what_envoy_has_of_an_earlier_server_is_removed() -> None:
    async with ads() as (server, connect):
        envoy = connect()
        publish = asyncio.create_task(server.publish(resources("a")))
        await envoy.ask(CLUSTER_TYPE, has=("fallback", *clusters("a", "b")))
        gone = {f"-{name}" for name in clusters("b")}
        assert await envoy.take(CLUSTER_TYPE) == {"fallback", *clusters("a"), *gone}
        publish.cancel()


async def test_publish_waits_until_an_envoy_connects() -> None:
    async with ads() as (server, connect):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(server.publish(resources("a")), 0.05)
        older = asyncio.create_task(server.publish(resources("b")))
        newer = asyncio.create_task(server.publish(resources("b", "c")))
        await asyncio.sleep(0.02)
        assert not older.done()
        await connect().start_up("b", "c")
        await asyncio.gather(older, newer)


async def test_pending_publishes_are_superseded_by_the_newest() -> None:
    async with ads() as (server, connect):
        envoy = connect()
        first = asyncio.create_task(server.publish(resources()))
        await envoy.start_up()
        await first
        running = asyncio.create_task(server.publish(resources("a")))
        added = await envoy.read(CLUSTER_TYPE)
        waiting = [asyncio.create_task(server.publish(resources(app))) for app in ("b", "c", "ad")]
        await envoy.ask(ENDPOINT_TYPE, "a#D")
        await envoy.take(ENDPOINT_TYPE)
        await envoy.ask(CLUSTER_TYPE, nonce=added.nonce)
        await envoy.take(ROUTE_TYPE)
        await running
        added = await envoy.read(CLUSTER_TYPE)
        assert {each.name for each in added.resources} == clusters("ad")
        await envoy.ask(ENDPOINT_TYPE, "ad#D")
        await envoy.take(ENDPOINT_TYPE)
        await envoy.ask(CLUSTER_TYPE, nonce=added.nonce)
        await envoy.take(ROUTE_TYPE)
        await envoy.take(CLUSTER_TYPE)
        await envoy.take(ENDPOINT_TYPE)
        await asyncio.gather(*waiting)


async def test_previous_routes_are_restored_after_a_nack() -> None:
    async with ads() as (server, connect):
        envoy = connect()
        first = asyncio.create_task(server.publish(resources("a")))
        await envoy.start_up("a")
        await first
        second = asyncio.create_task(server.publish(resources("a", "b")))
        added = await envoy.read(CLUSTER_TYPE)
        await envoy.ask(ENDPOINT_TYPE, "b#D")
        await envoy.take(ENDPOINT_TYPE)
        await envoy.ask(CLUSTER_TYPE, nonce=added.nonce)
        await envoy.take(ROUTE_TYPE, error="no such thing")
        with pytest.raises(ResourcesRejected, match="no such thing") as caught:
            await second
        assert caught.value.type_url == ROUTE_TYPE
        envoy.leave()
        while server.connections:
            await asyncio.sleep(0.01)
        # An Envoy that connects now gets the previous routes, and every cluster that they point to.
        envoy = connect()
        await envoy.ask(ROUTE_TYPE, "routes")
        routes = await envoy.read(ROUTE_TYPE)
        assert routes.resources[0].resource.value == resources("a").by_type[ROUTE_TYPE]["routes"].value
        await envoy.ask(ROUTE_TYPE, nonce=routes.nonce)
        third = asyncio.create_task(server.publish(resources("a")))
        await envoy.ask(CLUSTER_TYPE)
        assert clusters("a") <= await envoy.take(CLUSTER_TYPE)
        third.cancel()


async def test_publish_does_not_wait_for_a_disconnected_envoy() -> None:
    async with ads() as (server, connect):
        stays, leaves = connect(), connect()
        first = asyncio.create_task(server.publish(resources()))
        await asyncio.gather(stays.start_up(), leaves.start_up())
        await first
        assert server.connections == 2
        second = asyncio.create_task(server.publish(resources("a")))
        added = await stays.read(CLUSTER_TYPE)
        await stays.ask(ENDPOINT_TYPE, "a#D")
        await stays.take(ENDPOINT_TYPE)
        await stays.ask(CLUSTER_TYPE, nonce=added.nonce)
        await asyncio.sleep(0.05)
        assert not second.done()
        leaves.leave()
        await stays.take(ROUTE_TYPE)
        await second
        assert server.connections == 1


async def test_wait_acked_waits_for_the_envoy_that_replaces_a_dead_one() -> None:
    async with ads() as (server, connect):
        envoy = connect()
        publish = asyncio.create_task(server.publish(resources("a")))
        await envoy.start_up("a")
        await publish
        await asyncio.wait_for(server.wait_acked(), PATIENCE_S)
        server.disconnect()
        assert server.connections == 0
        settled = asyncio.create_task(server.wait_acked())
        await asyncio.sleep(0.02)
        assert not settled.done(), "ACKs of a dead Envoy do not count"
        second = connect()
        await second.start_up("a")
        await asyncio.wait_for(settled, PATIENCE_S)
        assert server.connections == 1


async def test_no_response_is_sent_before_the_first_publish() -> None:
    async with ads() as (server, connect):
        envoy = connect()
        await envoy.ask(CLUSTER_TYPE)
        await envoy.ask(LISTENER_TYPE)
        while not server.connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        publish = asyncio.create_task(server.publish(resources()))
        response = await envoy.read(CLUSTER_TYPE)
        assert response.nonce == "1", "the first response of this stream"
        assert response.resources
        publish.cancel()


async def test_stop_fails_pending_publishes() -> None:
    async with ads() as (server, _):
        waiting = asyncio.create_task(server.publish(resources()))
        await asyncio.sleep(0.02)
        await server.stop()
        with pytest.raises(IngressError, match="stopped"):
            await waiting
        with pytest.raises(IngressError, match="is not running"):
            await server.publish(resources())


async def test_inconsistent_resources_are_not_published() -> None:
    async with ads() as (server, _):
        with pytest.raises(IngressError, match="inconsistent"):
            await server.publish(Resources({}))


async def test_invalid_socket_paths_are_rejected() -> None:
    with pytest.raises(IngressError, match="107 bytes"):
        await AdsServer("/tmp/" + "x" * 103).start()
    with pytest.raises(IngressError, match="can't listen"):
        await AdsServer("/tmp/there-is-no-such-folder/s").start()


def test_a_rejection_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ResourcesRejected(ROUTE_TYPE, "no")))
    assert (error.type_url, error.reason, str(error)) == (ROUTE_TYPE, "no", "Envoy rejected RouteConfiguration: no")

"""Our control plane against a real Envoy."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sdk._gen import envoy_pb2 as pb
from sdk._ingress.envoy.stats import fetch_stats
from sdk._xds.access_log import AccessLogConfig
from sdk._xds.ads_server import AdsServer, ResourcesRejected
from sdk._xds.clusters import unix_cluster
from sdk._xds.packing import CLUSTER_TYPE, LISTENER_TYPE, pack_resource
from sdk._xds.rejection import IsolatingPublisher
from sdk._xds.resources import Resources, build_resources
from tests.support.envoy_rig import rig, start_envoy, stop_envoy
from tests.support.log_files import complete_lines
from tests.support.loops import PATIENCE_S

if TYPE_CHECKING:
    from sdk._xds.snapshot import Snapshot
    from tests.support.envoy_rig import Apps

GREET = "/demo.Greeter/SayHello"
FRUIT = "/demo.Fruit/Count"
OTHER = "/demo.Other/Do"
ONE: Apps = {"one": {"Greeter": (["demo.Greeter"], ["a"])}}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def app(name: str) -> tuple[str, str]:
    return ("application", name)


async def test_the_last_of_several_application_values_counts() -> None:
    async with rig("a", "b", "c") as it:
        two = {"two": {"Greeter": (["demo.Greeter"], ["b"])}}
        await it.publish({**ONE, **two, "x, two": {"Greeter": (["demo.Greeter"], ["c"])}})
        assert await it.answers(GREET, app("one"), app("two")) == "b"
        assert await it.answers(GREET, app("two"), app("three"), app("one")) == "a"
        assert await it.answers(GREET, app("one"), app("three")) == "NOT_FOUND"
        assert await it.answers(GREET, app("x, two")) == "c", "one value with a comma"


async def test_replicas_on_unix_sockets_and_on_tcp_in_one_deployment() -> None:
    async with rig("a", "b") as it:
        await it.upstreams["a"].only_on_a_unix_socket()
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a", "b"])}})
        assert {await it.answers(GREET) for _ in range(40)} == {"a", "b"}
        await it.upstreams["a"].stop()
        assert {await it.answers(GREET) for _ in range(40)} == {"b"}, "refused, and retried on the other one"


async def test_several_applications() -> None:
    async with rig("a", "b", "c") as it:
        two = {"Greeter": (["demo.Greeter"], ["b"]), "Fruit": (["demo.Fruit"], ["c"])}
        await it.publish({**ONE, "two": two, "Ünï 'app'": {"D": (["demo.Greeter"], ["c"])}})
        assert await it.answers(GREET, app("one")) == "a"
        assert await it.answers(GREET, app("two")) == "b"
        assert await it.answers(FRUIT, app("two")) == "c"
        assert await it.answers(GREET, app("three")) == "NOT_FOUND"
        assert await it.answers(GREET, app("")) == "NOT_FOUND"
        assert await it.answers(GREET) == "NOT_FOUND"
        assert await it.answers(OTHER, app("one")) == "a", "the only deployment answers UNIMPLEMENTED itself"
        assert await it.answers(OTHER, app("two")) == "NOT_FOUND", "several deployments: the fallback answers"
        for method in ("ray.serve.RayServeAPIService/Healthz", "grpc.health.v1.Health/Check"):
            code, text, _ = await it.call(f"/{method}", app("one"))
            assert (code, text) == ("NOT_FOUND", f"fallback /{method}")
        reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        assert await it.answers(reflection, app("one")) == "NOT_FOUND"
        assert "LIVE" in await it.admin("/ready")
        log = (it.folder / "envoy.log").read_text()
        assert not re.findall(r".*\[(?:warning|error|critical)\].*", log)


async def test_only_application() -> None:
    async with rig("a") as it:
        await it.publish(ONE)
        assert await it.answers(GREET) == "a"
        assert await it.answers(GREET, app("")) == "a"
        assert await it.answers(GREET, app("one")) == "a"
        assert await it.answers(GREET, app("two")) == "NOT_FOUND"
        await it.publish({})
        assert await it.answers(GREET) == "NOT_FOUND"
        assert await it.answers(GREET, app("one")) == "NOT_FOUND"


async def test_route_by_service() -> None:
    async with rig("a", "b") as it:
        both = {"Both": (["demo.Fruit", "demo.Shared"], ["b"])}
        await it.publish({"one": {"Greeter": (["demo.Greeter", "demo.Shared"], ["a"])}, "two": both}, True)
        assert await it.answers(GREET) == "a"
        assert await it.answers(FRUIT) == "b"
        assert await it.answers(FRUIT, app("")) == "b"
        assert await it.answers("/demo.Shared/Do") == "NOT_FOUND"
        assert await it.answers("/demo.Shared/Do", app("two")) == "b"
        assert await it.answers(OTHER) == "NOT_FOUND"
        assert await it.answers(GREET, app("three")) == "NOT_FOUND"


async def test_changes_are_in_force_when_publish_returns() -> None:
    async with rig("a", "b") as it:
        for _ in range(3):
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a"])}})
            assert {await it.answers(GREET, app("one")) for _ in range(5)} == {"a"}
            await it.publish({"one": {"Greeter": (["demo.Greeter"], ["b"])}})
            assert {await it.answers(GREET, app("one")) for _ in range(5)} == {"b"}
        await it.publish({**ONE, "two": {"Greeter": (["demo.Greeter"], ["b"])}})
        assert await it.answers(GREET, app("two")) == "b"
        await it.publish({"two": {"Greeter": (["demo.Greeter"], ["b"])}})
        assert await it.answers(GREET, app("one")) == "NOT_FOUND"
        await it.publish({**ONE, "two": {"Greeter": (["demo.Greeter"], ["b"])}})
        assert await it.answers(GREET, app("one")) == "a", "an application that comes back"


async def test_a_stopped_replica_fails_no_call() -> None:
    async with rig("a", "b") as it:
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["a", "b"])}})
        await it.upstreams["b"].stop()
        for model in map(str, range(10)):
            assert await it.answers(GREET, app("one")) == "a"
            assert await it.answers(GREET, app("one"), ("multiplexed_model_id", model)) == "a"


async def test_no_ready_replica() -> None:
    async with rig() as it:
        await it.publish({"Zoë's": {"Greeter": (["demo.Greeter"], [])}})
        code, text, trailers = await it.call(GREET, ("request_id", "r1"))
        assert (code, text) == ("UNAVAILABLE", "No replica of application 'Zoë's' is ready.")
        assert trailers["request_id"] == "r1"
        _, _, trailers = await it.call(GREET)
        assert UUID.fullmatch(trailers["request_id"])


async def test_unreachable_replica() -> None:
    async with rig("a") as it:
        await it.publish(ONE)
        await it.upstreams["a"].stop()
        code, _, trailers = await it.call(GREET, ("request_id", "r1"))
        assert (code, trailers["request_id"]) == ("UNAVAILABLE", "r1")


async def test_overflow_is_resource_exhausted() -> None:
    async with rig("a") as it:
        log = it.folder / "access.log"
        it.config = replace(it.config, access_log=AccessLogConfig(str(log)))
        resources = it.resources(ONE)
        cluster = pb.Cluster.FromString(resources.by_type[CLUSTER_TYPE]["one#Greeter"].value)
        cluster.circuit_breakers.thresholds[0].max_connections.value = 1
        cluster.circuit_breakers.thresholds[0].max_pending_requests.value = 1
        clusters = {**resources.by_type[CLUSTER_TYPE], cluster.name: pack_resource(cluster)}
        await asyncio.wait_for(it.ads.publish(Resources({**resources.by_type, CLUSTER_TYPE: clusters})), PATIENCE_S)
        it.upstreams["a"].hold.clear()
        first = asyncio.create_task(it.call(GREET))
        while not it.upstreams["a"].calls:
            await asyncio.sleep(0.01)
        # One more call may wait for the connection that the first one uses.
        calls = {f"r{n}": asyncio.create_task(it.call(GREET, ("request_id", f"r{n}"))) for n in range(4)}
        await asyncio.wait(calls.values(), timeout=5, return_when=asyncio.FIRST_COMPLETED)
        it.upstreams["a"].hold.set()
        assert (await first)[0] == "OK"
        dropped = {key: await call for key, call in calls.items() if (await call)[0] != "OK"}
        assert dropped
        assert (await fetch_stats(it.folder / "envoy.admin.sock"))["overflow"] == len(dropped)
        for key, (code, text, trailers) in dropped.items():
            assert code == "RESOURCE_EXHAUSTED"
            assert text.startswith("Request dropped due to backpressure: ")
            async with asyncio.timeout(PATIENCE_S):
                while not (logged := [line for line in complete_lines(log) if f'"{key}"' in line]):
                    await asyncio.sleep(0.01)
            assert (
                json.loads(logged[0]).items()
                >= {
                    "status": code,
                    "details": "upstream_reset_before_response_started{overflow}",
                    "flags": "UO",
                }.items()
            )
            assert "application 'one'" in text
            assert trailers["request_id"] == key


async def test_a_cluster_that_changes_gets_its_endpoints_again() -> None:
    async with rig("a", "b") as it:
        await it.publish(ONE)
        resources = it.resources(ONE)
        clusters = dict(resources.by_type[CLUSTER_TYPE])
        for name in ("one#Greeter", "one#Greeter#model"):
            cluster = pb.Cluster.FromString(clusters[name].value)
            cluster.connect_timeout.seconds = 7
            clusters[name] = pack_resource(cluster)
        await asyncio.wait_for(it.ads.publish(Resources({**resources.by_type, CLUSTER_TYPE: clusters})), PATIENCE_S)
        changed = await it.admin("/config_dump?resource=dynamic_active_clusters&mask=cluster.connect_timeout")
        assert changed.count('"7s"') == 2
        assert await it.answers(GREET) == "a"
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["b"])}})
        assert await it.answers(GREET) == "b"


async def test_rejected_resources_change_nothing_and_block_nothing() -> None:
    async with rig("a", "b") as it:
        bad = it.resources({**ONE, "bad": {"Greeter": (["demo.Greeter"], ["b"])}})
        cluster = pb.Cluster.FromString(bad.by_type[CLUSTER_TYPE]["bad#Greeter"].value)
        cluster.connect_timeout.seconds = -1
        broken = Resources(
            {**bad.by_type, CLUSTER_TYPE: {**bad.by_type[CLUSTER_TYPE], cluster.name: pack_resource(cluster)}},
        )
        with pytest.raises(ResourcesRejected, match="Expected positive duration") as first:
            await asyncio.wait_for(it.ads.publish(broken), PATIENCE_S)
        assert first.value.type_url == CLUSTER_TYPE
        await it.publish(ONE)
        with pytest.raises(ResourcesRejected):
            await asyncio.wait_for(it.ads.publish(broken), PATIENCE_S)
        assert await it.answers(GREET, app("one")) == "a"
        await it.publish({**ONE, "bad": {"Greeter": (["demo.Greeter"], ["b"])}})
        assert await it.answers(GREET, app("bad")) == "b"


async def test_what_envoy_took_of_a_rejected_response_is_removed() -> None:
    async with rig("a") as it:
        await it.publish(ONE)
        bad = it.resources({**ONE, "bad": ONE["one"], "late": ONE["one"]})
        host = pb.Address(socket_address=pb.SocketAddress(address="nowhere", port_value=1))
        broken = unix_cluster("bad#Greeter", "")
        broken.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.CopyFrom(host)
        clusters = {**bad.by_type[CLUSTER_TYPE], broken.name: pack_resource(broken)}
        resources = Resources({**bad.by_type, CLUSTER_TYPE: clusters}, is_checked=True)
        with pytest.raises(ResourcesRejected, match="malformed IP address: nowhere"):
            await asyncio.wait_for(it.ads.publish(resources), PATIENCE_S)
        await it.publish({**ONE, "new": ONE["one"]})
        active = await it.admin("/clusters")
        assert "new#Greeter::" in active
        assert "bad#" not in active
        assert "late#" not in active


async def test_a_rejected_replica_blocks_only_its_application() -> None:
    async with rig("a", "b") as it:

        async def publish(snapshot: Snapshot) -> None:
            await asyncio.wait_for(it.ads.publish(build_resources(snapshot, it.config)), PATIENCE_S)

        publisher = IsolatingPublisher(publish)
        bad = {"bad": {"Greeter": (["demo.Greeter"], ["b"])}}
        await publisher.publish(it.snapshot({**ONE, **bad}))
        # A link-local address with an interface that this machine does not have.
        it.upstreams["b"].endpoint_host = "fe80::1%nowhere"
        new = {"new": {"Greeter": (["demo.Greeter"], ["a"])}}
        for _ in range(2):
            await publisher.publish(it.snapshot({**ONE, **bad, **new}))
            (rejected,) = publisher.rejected_applications
            assert rejected.application == "bad"
            assert rejected.reason.startswith("Envoy rejected ClusterLoadAssignment: malformed IP address: fe80")
            assert await it.answers(GREET, app("new")) == "a"
            assert await it.answers(GREET, app("bad")) == "b", "the previous state"
        it.upstreams["b"].endpoint_host = "127.0.0.1"
        await publisher.publish(it.snapshot({**ONE, **bad}))
        assert publisher.rejected_applications == ()
        assert await it.answers(GREET, app("bad")) == "b"
        assert await it.answers(GREET, app("new")) == "NOT_FOUND"


async def test_a_rejected_replica_of_a_new_application_blocks_only_that() -> None:
    async with rig("a", "b") as it:

        async def publish(snapshot: Snapshot) -> None:
            await asyncio.wait_for(it.ads.publish(build_resources(snapshot, it.config)), PATIENCE_S)

        publisher = IsolatingPublisher(publish)
        await publisher.publish(it.snapshot(ONE))
        it.upstreams["b"].endpoint_host = "fe80::1%nowhere"
        new = {name: {"Greeter": (["demo.Greeter"], [up])} for name, up in (("bad", "b"), ("c", "a"), ("d", "a"))}
        await publisher.publish(it.snapshot({**ONE, **new}))
        assert [each.application for each in publisher.rejected_applications] == ["bad"]
        assert [await it.answers(GREET, app(name)) for name in ("one", "bad", "c", "d")] == [
            "a",
            "UNAVAILABLE",
            "a",
            "a",
        ]
        it.upstreams["b"].endpoint_host = "127.0.0.1"
        await publisher.publish(it.snapshot({**ONE, **new}))
        assert await it.answers(GREET, app("bad")) == "b"


async def test_only_listed_services_are_routed() -> None:
    async with rig("a") as it:
        snapshot = replace(it.snapshot(ONE), listed_services_only=True)
        await asyncio.wait_for(it.ads.publish(build_resources(snapshot, it.config)), PATIENCE_S)
        assert await it.answers(GREET) == "a"
        assert await it.answers(OTHER) == "NOT_FOUND", "from the fallback"


async def test_a_port_in_use_is_reported_and_can_be_retried() -> None:
    async with rig("a") as it:
        with socket.socket() as other:
            # As every grpcio server does: the kernel would distribute connections over two such sockets.
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", it.port))
            other.listen()
            with pytest.raises(ResourcesRejected, match=r"(?i)address already in use") as taken:
                await it.publish(ONE)
            assert taken.value.type_url == LISTENER_TYPE
        await it.publish(ONE)
        assert await it.answers(GREET) == "a"


async def test_control_plane_restarts() -> None:
    async with rig("a", "b") as it:
        await it.publish({**ONE, "gone": ONE["one"]})
        await it.ads.stop()
        assert await it.answers(GREET, app("gone")) == "a"
        it.ads = AdsServer(str(it.folder / "ads.sock"))
        await it.ads.start()
        while not it.ads.connections:
            await asyncio.sleep(0.02)
        assert await it.answers(GREET, app("gone")) == "a", "a control plane without a table changes nothing"
        await it.publish({"one": {"Greeter": (["demo.Greeter"], ["b"])}})
        assert await it.answers(GREET) == "b"
        assert "gone#" not in await it.admin("/clusters")
        await it.ads.stop()


async def test_envoy_restarts() -> None:
    async with rig("a", "b") as it:
        await it.publish(ONE)
        stop_envoy(it.process)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(it.ads.publish(it.resources({"two": ONE["one"]})), 0.1)
        waiting = asyncio.create_task(it.publish({"three": {"Greeter": (["demo.Greeter"], ["b"])}}))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        second = start_envoy(it.folder, "second")
        try:
            await waiting
            assert await it.answers(GREET, app("three")) == "b"
            assert await it.answers(GREET, app("two")) == "NOT_FOUND"
        finally:
            stop_envoy(second)

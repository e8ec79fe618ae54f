"""Health of the ingress and of each service, without sockets."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb

from sdk._ingress.builtin.bindings import OpenStreams
from sdk._ingress.builtin.health import HealthServicer, status_of
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from sdk.errors import RpcError

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3
R = Endpoint("r", "127.0.0.1", 4000)
TABLE = Snapshot(
    1,
    (
        Application("a", (Deployment("D", ("t.T",), (R,)), Deployment("E", ("t.U",)))),
        Application(
            "b",
            (
                Deployment("D", ("t.T",)),
                Deployment("Z", ("t.Z",), max_waiting=1, scales_to_zero=True),
                Deployment("R", ("t.R",), max_waiting=1),
            ),
        ),
    ),
)


@pytest.mark.parametrize(
    ("service", "application", "status"),
    [
        ("t.T", None, SERVING),
        ("t.T", "", SERVING),
        ("t.T", "a", SERVING),
        ("t.T", "b", NOT_SERVING),
        ("t.U", None, NOT_SERVING),
        ("t.U", "b", None),
        ("t.Z", "b", SERVING),  # scaled to zero: a call starts a replica
        ("t.R", "b", NOT_SERVING),  # its replica is being replaced
        ("t.X", None, None),
    ],
)
def test_a_service_is_serving_if_it_has_a_replica(service: str, application: str | None, status: int | None) -> None:
    assert status_of(TABLE, service, application) == status


def health(table: list[Snapshot], streams: int = 10) -> HealthServicer:
    return HealthServicer(lambda: table[-1], frozenset({"built.In"}), OpenStreams(streams))


def of_application(name: str | None = None) -> Any:
    """The context of a call with this `application` metadata."""
    return SimpleNamespace(application=lambda: name)


async def check(health: HealthServicer, service: str) -> int:
    answer = await health.check(pb.HealthCheckRequest(service=service), of_application())
    return int(answer.status)


async def test_check() -> None:
    it = health([TABLE])
    assert await check(it, "") == SERVING, "the proxy answers whatever the state of applications"
    assert await check(it, "built.In") == SERVING
    assert await check(it, "t.U") == NOT_SERVING
    with pytest.raises(RpcError, match=r"No application serves 't\.X'") as raised:
        await check(it, "t.X")
    assert raised.value.code is grpc.StatusCode.NOT_FOUND
    it.is_draining = True
    assert [await check(it, service) for service in ("", "built.In", "t.T", "t.X")] == [NOT_SERVING] * 4


async def test_probes_before_the_first_application_and_while_the_node_is_drained() -> None:
    table = [Snapshot(0)]
    it = health(table)
    assert [await check(it, probe) for probe in ("", "live", "ready")] == [SERVING, SERVING, NOT_SERVING]
    table.append(TABLE)
    assert await check(it, "ready") == SERVING
    table.append(Snapshot(2))
    assert await check(it, "ready") == SERVING, "calls then end NOT_FOUND, as they should"
    it.is_draining = True
    assert [await check(it, probe) for probe in ("", "live", "ready")] == [NOT_SERVING, SERVING, NOT_SERVING]


@pytest.mark.skipif(not hasattr(pb, "HealthListRequest"), reason="grpcio-health-checking is older than List")
async def test_list() -> None:
    async def statuses(it: HealthServicer, application: str | None = None) -> dict[str, int]:
        answer = await it.list_statuses(pb.HealthListRequest(), of_application(application))
        return {service: each.status for service, each in answer.statuses.items()}

    it = health([TABLE])
    everywhere = await statuses(it)
    assert everywhere == {
        "": SERVING,
        "built.In": SERVING,
        "t.R": NOT_SERVING,
        "t.T": SERVING,
        "t.U": NOT_SERVING,
        "t.Z": SERVING,
    }
    assert await statuses(it, "b") == {
        "": SERVING,
        "built.In": SERVING,
        "t.R": NOT_SERVING,
        "t.T": NOT_SERVING,
        "t.Z": SERVING,
    }
    it.is_draining = True
    assert await statuses(it) == dict.fromkeys(everywhere, NOT_SERVING)


async def test_watch_sends_every_change_once() -> None:
    table = [Snapshot(0)]

    async def scenario() -> list[int]:
        it = health(table)
        seen: list[int] = []
        sent = asyncio.Event()

        async def watch() -> None:
            async for answer in it.watch(pb.HealthCheckRequest(service="t.T"), of_application()):
                seen.append(answer.status)
                sent.set()

        task = asyncio.create_task(watch())
        for change in (None, TABLE, "drain"):
            if isinstance(change, Snapshot):
                table.append(change)
            it.is_draining = change == "drain"
            it.notify()
            await asyncio.wait_for(sent.wait(), 5)
            sent.clear()
        table.append(TABLE)
        it.notify()  # nothing has changed for this service
        await asyncio.sleep(0)
        task.cancel()
        return seen

    assert await scenario() == [UNKNOWN, SERVING, NOT_SERVING]


async def test_streams_above_the_limit_are_refused_until_one_ends() -> None:
    it = health([TABLE], streams=1)
    request = pb.HealthCheckRequest(service="t.T")
    first = it.watch(request, of_application())
    assert (await anext(first)).status == SERVING
    with pytest.raises(RpcError, match="1 streams of health checks and server reflection are open") as raised:
        await anext(it.watch(request, of_application()))
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await check(it, "t.T") == SERVING
    await first.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert (await anext(it.watch(request, of_application()))).status == SERVING

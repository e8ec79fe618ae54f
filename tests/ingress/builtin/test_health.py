"""Health of the ingress and of each service, without sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb

from sdk._ingress.builtin.health import HealthServicer, status_of
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3
R = Endpoint("r", "127.0.0.1", 4000)
TABLE = Snapshot(
    1,
    (
        Application("a", (Deployment("D", ("t.T",), (R,)), Deployment("E", ("t.U",)))),
        Application("b", (Deployment("D", ("t.T",)), Deployment("Z", ("t.Z",), max_waiting=1))),
    ),
)


class Context:
    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.metadata = metadata
        self.trailing: Any = ()
        self.code: grpc.StatusCode | None = None

    def invocation_metadata(self) -> Any:
        return self.metadata

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = metadata

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.code = code
        raise grpc.aio.AbortError(details)


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
        ("t.X", None, None),
    ],
)
def test_a_service_is_serving_if_it_has_a_replica(service: str, application: str | None, status: int | None) -> None:
    assert status_of(TABLE, service, application) == status


def health(table: list[Snapshot]) -> HealthServicer:
    return HealthServicer(lambda: table[-1], frozenset({"built.In"}))


async def check(health: HealthServicer, service: str, *metadata: tuple[str, str]) -> tuple[int | None, Context]:
    context = Context(*metadata)

    async def call() -> int | None:
        try:
            answer = await health._check(pb.HealthCheckRequest(service=service), context)  # type: ignore[arg-type]
        except grpc.aio.AbortError:
            return None
        return int(answer.status)

    return await call(), context


async def test_check() -> None:
    it = health([TABLE])
    assert (await check(it, ""))[0] == SERVING, "the proxy answers whatever the state of applications"
    assert (await check(it, "built.In"))[0] == SERVING
    assert (await check(it, "t.U"))[0] == NOT_SERVING
    status, context = await check(it, "t.X", ("request_id", "7"))
    assert (status, context.code, context.trailing) == (None, grpc.StatusCode.NOT_FOUND, (("request_id", "7"),))
    it.is_draining = True
    assert [(await check(it, service))[0] for service in ("", "built.In", "t.T", "t.X")] == [NOT_SERVING] * 4


@pytest.mark.skipif(not hasattr(pb, "HealthListRequest"), reason="grpcio-health-checking is older than List")
async def test_list() -> None:
    async def statuses(it: HealthServicer, *metadata: tuple[str, str]) -> dict[str, int]:
        answer = await it._list(pb.HealthListRequest(), Context(*metadata))  # type: ignore[arg-type]
        return {service: each.status for service, each in answer.statuses.items()}

    it = health([TABLE])
    everywhere = await statuses(it)
    assert everywhere == {"": SERVING, "built.In": SERVING, "t.T": SERVING, "t.U": NOT_SERVING, "t.Z": SERVING}
    assert await statuses(it, ("application", "b")) == {
        "": SERVING,
        "built.In": SERVING,
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
            async for answer in it._watch(pb.HealthCheckRequest(service="t.T"), Context()):  # type: ignore[arg-type]
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

"""Heartbeats of the replicas of one node, with the proxy's end and the replicas' in one process."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from sdk._channel.replicas import connect_locally
from sdk._ingress import node_leases as module
from sdk._ingress.node_leases import NodeHeartbeat, NodeLeases, socket_name
from sdk._ingress.registry import Lease
from sdk.options import GrpcOptions
from tests.support.loops import PATIENCE_S

OPTIONS, CHANGED = GrpcOptions(), GrpcOptions(request_timeout_s=5)


class Controller:
    """Answers one proxy."""

    def __init__(self) -> None:
        self.calls: list[dict[str, GrpcOptions]] = []
        self.lease = Lease(OPTIONS, several_nodes=False)
        self.unknown: frozenset[str] = frozenset()
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: Exception | None = None

    async def renew_all(self, renewals: Mapping[str, GrpcOptions]) -> tuple[Lease, frozenset[str]]:
        self.calls.append(dict(renewals))
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return self.lease, self.unknown


@asynccontextmanager
async def node(controller: Controller, node_id: str) -> AsyncIterator[NodeLeases]:
    leases = NodeLeases(controller.renew_all, heartbeat_s=0.0)
    task = asyncio.create_task(leases.listen(node_id))
    while True:
        try:
            connect_locally(socket_name(node_id)).close()
            break
        except OSError:
            await asyncio.sleep(0.01)
    try:
        yield leases
    finally:
        task.cancel()
        leases.stop()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def node_id() -> str:
    return uuid.uuid4().hex


async def test_one_call_renews_all_replicas_of_a_node(node_id: str) -> None:
    controller = Controller()
    async with node(controller, node_id):
        replicas = [NodeHeartbeat(node_id, f"r{number}", PATIENCE_S) for number in range(20)]
        for _ in range(2):
            assert await asyncio.gather(*(each.renew(OPTIONS) for each in replicas)) == [controller.lease] * 20
        assert [sorted(call) for call in controller.calls] == [sorted(f"r{number}" for number in range(20))] * 2
        options = list(controller.calls[0].values())
        assert options == [OPTIONS] * 20
        assert len({id(each) for each in options}) == 1, "they are pickled once"
        for each in replicas:
            each.close()


async def test_a_changed_lease_and_an_unknown_replica_are_answered(node_id: str) -> None:
    controller = Controller()
    async with node(controller, node_id):
        known, unknown = (NodeHeartbeat(node_id, name, PATIENCE_S) for name in ("known", "unknown"))
        controller.lease, controller.unknown = Lease(CHANGED, several_nodes=True), frozenset({"unknown"})
        assert await asyncio.gather(known.renew(OPTIONS), unknown.renew(OPTIONS)) == [controller.lease, None]
        controller.unknown = frozenset()
        assert await asyncio.gather(known.renew(CHANGED), unknown.renew(OPTIONS)) == [controller.lease] * 2
        assert controller.calls[-1] == {"known": CHANGED, "unknown": OPTIONS}
        known.close()
        unknown.close()


async def test_without_a_proxy_the_replica_learns_it_at_once(node_id: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        await NodeHeartbeat(node_id, "r", PATIENCE_S).renew(OPTIONS)


async def test_a_replica_whose_proxy_can_not_renew_gets_no_answer(node_id: str) -> None:
    controller = Controller()
    async with node(controller, node_id):
        replica = NodeHeartbeat(node_id, "r", 0.6)
        controller.error = RuntimeError("no controller")
        with pytest.raises(TimeoutError):
            await replica.renew(OPTIONS)
        controller.error, replica = None, NodeHeartbeat(node_id, "r", PATIENCE_S)
        assert await replica.renew(OPTIONS) == controller.lease, "the next heartbeat finds the controller again"
        replica.close()


async def test_a_late_answer_is_not_that_of_the_next_heartbeat(node_id: str) -> None:
    controller = Controller()
    async with node(controller, node_id):
        replica = NodeHeartbeat(node_id, "r", 0.5)
        controller.answers.clear()
        with pytest.raises(TimeoutError):
            await replica.renew(OPTIONS)
        replica = NodeHeartbeat(node_id, "r", PATIENCE_S)
        late = asyncio.create_task(replica.renew(OPTIONS))
        controller.lease = Lease(CHANGED, several_nodes=True)
        controller.answers.set()
        assert await late == controller.lease
        replica.close()


async def test_a_proxy_that_restarts_is_found_again(node_id: str) -> None:
    controller = Controller()
    replica = NodeHeartbeat(node_id, "r", PATIENCE_S)
    async with node(controller, node_id):
        await replica.renew(OPTIONS)
    with pytest.raises(OSError, match=r"closed|reset|refused|Broken"):
        await replica.renew(OPTIONS)
    async with node(controller, node_id):
        assert await replica.renew(OPTIONS) == controller.lease
        replica.close()


def test_a_replica_has_time_left_when_its_proxy_does_not_answer() -> None:
    from sdk._ingress.cluster import HEARTBEAT_S, LEASE_S

    assert HEARTBEAT_S + module._ANSWER_S < LEASE_S - 1


async def test_replicas_give_up_a_silent_proxy_one_after_the_other(node_id: str) -> None:
    controller, loop = Controller(), asyncio.get_running_loop()
    controller.answers.clear()

    async def give_up(name: str) -> float:
        with pytest.raises(TimeoutError):
            await NodeHeartbeat(node_id, name, 0.1).renew(OPTIONS)
        return loop.time()

    async with node(controller, node_id):
        ended = await asyncio.gather(*(give_up(f"r{number}") for number in range(50)))
        assert max(ended) - min(ended) > 0.25, "the controller would get the calls of all at once"

"""The long poll of the proxies, at a controller without Ray."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from sdk._ingress import controller as module
from sdk._ingress.cluster import LEASE_S
from sdk._ingress.controller import Controller
from sdk._ingress.proxy import NodeProxy
from sdk._ingress.publication import apply_update
from sdk._ingress.registry import ProxyState, Replica, WatchAnswer
from sdk._ingress.table_delta import TableDelta
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from sdk.options import GrpcOptions
from tests.support.fake_serve import EmptyServe

STATE = ProxyState("p1", "node", "127.0.0.1:9000", version=1)
TABLE = Snapshot(
    1 << 60,
    (
        Application(
            "app", (Deployment("D", ("t.T",), tuple(Endpoint(f"r{i:04}", "10.0.0.1", i) for i in range(1, 1001))),)
        ),
    ),
)


@pytest.fixture
async def controller(monkeypatch: pytest.MonkeyPatch, older_proxies: set[str]) -> AsyncIterator[Any]:
    async def load(options: GrpcOptions) -> GrpcOptions:
        return options

    loop, has_looked = asyncio.get_running_loop(), asyncio.Event()
    monkeypatch.setattr(module, "_WATCH_S", 0.0)
    monkeypatch.setattr(module, "log_to_file", lambda actor, name: None)
    monkeypatch.setattr(module.option_store, "load", load)
    monkeypatch.setattr(module.proxy_fleet, "alive_nodes", lambda: {"node": True})
    monkeypatch.setattr(module.proxy_fleet, "nodes_with_proxy", lambda nodes: older_proxies)
    # The last of its looks at the nodes; in a thread.
    monkeypatch.setattr(
        module.proxy_fleet, "create", lambda node_id, options: loop.call_soon_threadsafe(has_looked.set)
    )
    it: Any = Controller.__new__(Controller)
    await it.__init__(GrpcOptions(), EmptyServe())
    await has_looked.wait()
    yield it
    it._reconcile_task.cancel()


class Remote:
    """A controller as its actor handle shows it, with the size of each message."""

    def __init__(self, controller: Any) -> None:
        self.sent: list[int] = []
        self.answers: list[WatchAnswer] = []
        self.watch = self
        self._controller = controller

    async def remote(self, *arguments: Any) -> WatchAnswer:
        self.sent.append(len(pickle.dumps(arguments)))
        self.answers.append(await self._controller.watch(*arguments))
        return self.answers[-1]


def proxy_that_serves(table: Snapshot | None) -> Any:
    proxy: Any = NodeProxy.__new__(NodeProxy)
    proxy._state, proxy._snapshot = STATE, table
    return proxy


@pytest.mark.parametrize("older_proxies", [set()])
async def test_a_heartbeat_carries_no_table(controller: Any) -> None:
    endpoints = TABLE.applications[0].deployments[0].endpoints
    for endpoint in endpoints:
        controller._registry.register(Replica("app", "D", ("t.T",), endpoint))
    controller._published_at = 0.0  # long ago
    remote = Remote(controller)
    first = await proxy_that_serves(None)._next_snapshot(remote)
    assert first.applications == TABLE.applications
    proxy = proxy_that_serves(first)
    assert await proxy._next_snapshot(remote) is None
    assert max(remote.sent) < 500
    controller._registry.deregister("r0007")
    controller._published_at = 0.0  # long ago
    second = await proxy._next_snapshot(remote)
    assert (second.version, second) == (first.version + 1, controller._registry.snapshot)
    assert max(remote.sent) < 500
    whole, delta = (len(answer.update) for answer in remote.answers if answer.update is not None)
    assert delta < 1_000 < whole


@pytest.mark.parametrize("older_proxies", [{"node"}])
async def test_a_restarted_controller_asks_for_the_table_once(controller: Any) -> None:
    remote = Remote(controller)
    proxy = proxy_that_serves(TABLE)
    adopted = await proxy._next_snapshot(remote)
    assert adopted.applications == TABLE.applications
    assert adopted.version > TABLE.version
    asked, told = remote.sent
    assert asked < 500 < told
    proxy._snapshot = adopted
    assert await proxy._next_snapshot(remote) is None
    assert remote.sent[2:] < [500]


@pytest.mark.parametrize("older_proxies", [{"node", "lost"}])
async def test_nothing_is_published_and_no_table_sent_again_before_recovery_is_over(controller: Any) -> None:
    remote = Remote(controller)
    proxy = proxy_that_serves(TABLE)
    assert [await proxy._next_snapshot(remote), await proxy._next_snapshot(remote)] == [None, None]
    assert [size < 500 for size in remote.sent] == [True, False, True]


@pytest.mark.parametrize("older_proxies", [set()])
async def test_a_proxy_that_can_not_take_a_delta_gets_the_whole_table(controller: Any) -> None:
    for number in (1, 2):
        controller._registry.register(Replica("app", "D", ("t.T",), Endpoint(f"r{number}", "10.0.0.1", number)))
        controller._published_at = 0.0  # long ago
        controller._publish_soon()
    remote = Remote(controller)
    proxy = proxy_that_serves(None)
    proxy._snapshot = await proxy._next_snapshot(remote)
    other = replace(proxy._snapshot, applications=())
    controller._registry.deregister("r2")
    controller._published_at = 0.0
    controller._publish_soon()
    proxy._snapshot = other
    assert await proxy._next_snapshot(remote) == controller._registry.snapshot
    delta, whole = (pickle.loads(answer.update) for answer in remote.answers[1:] if answer.update is not None)
    assert (type(delta), type(whole)) == (TableDelta, Snapshot)


@pytest.mark.parametrize("older_proxies", [set()])
async def test_a_burst_of_changes_is_published_together(controller: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WATCH_S", 60.0)
    assert module._GAP_S <= 0.1, "the bound on the delay"
    held = (await proxy_that_serves(None)._next_snapshot(Remote(controller))).version
    loop = asyncio.get_running_loop()
    began = controller._published_at = loop.time()
    watching = [asyncio.create_task(controller.watch(STATE, held)) for _ in range(3)]
    joining = [
        asyncio.create_task(
            controller.register(
                Replica("app", "D", ("t.T",), Endpoint(f"r{number}", "10.0.0.1", number)), b"", 60.0, GrpcOptions()
            )
        )
        for number in range(1, 101)
    ]
    answers = await asyncio.gather(*watching)
    assert loop.time() - began >= module._GAP_S / 2
    assert len({answer.update for answer in answers}) == 1
    newest = apply_update(answers[0].update, Snapshot(held))
    assert len(newest.applications[0].deployments[0].endpoints) == 100
    assert not any(task.done() for task in joining)
    await controller.report(replace(STATE, version=newest.version))
    assert await asyncio.gather(*joining) == [True] * 100


@pytest.mark.parametrize("older_proxies", [set()])
async def test_a_stuck_proxy_does_not_delay_the_tables_of_others(controller: Any) -> None:
    controller._published_at = 0.0
    await controller.report(replace(STATE, proxy_id="stuck", node_id="other", version=1))
    controller._registry.register(Replica("app", "D", ("t.T",), TABLE.applications[0].deployments[0].endpoints[0]))
    leaving = asyncio.create_task(controller.deregister("r0001", 60.0))
    await asyncio.sleep(0)
    proxy = proxy_that_serves(None)
    while proxy._snapshot != controller._registry.snapshot:  # the two changes may come in one table, or in two
        proxy._snapshot = await proxy._next_snapshot(Remote(controller)) or proxy._snapshot
    await controller.report(replace(STATE, version=proxy._snapshot.version))
    await asyncio.sleep(0)
    assert not leaving.done(), "it waits for the stuck proxy"
    controller._registry.remove_proxy("stuck")
    controller._acknowledgements.settle()
    assert await leaving


@pytest.mark.parametrize("older_proxies", [set()])
async def test_a_replica_that_waits_for_a_slow_proxy_is_not_removed(controller: Any) -> None:
    await controller.report(replace(STATE, proxy_id="stuck", node_id="other", version=1))
    endpoint = TABLE.applications[0].deployments[0].endpoints[0]
    registry, now = controller._registry, time.monotonic()
    registering = asyncio.create_task(
        controller.register(Replica("app", "D", ("t.T",), endpoint), b"", 60.0, registry.options)
    )
    await asyncio.sleep(0)
    for later in range(3, round(LEASE_S) + 3, 3):
        registry._clock = lambda later=later: now + later
        await controller._reconcile()
    assert [each.endpoints for each in registry.snapshot.applications[0].deployments] == [(endpoint,)]
    registry.remove_proxy("stuck")
    controller._acknowledgements.settle()
    assert await registering
    for later in range(12, round(LEASE_S) + 12, 3):
        registry._clock = lambda later=later: now + later
        await controller._reconcile()
    assert registry.snapshot.applications == (), "it has sent no heartbeat since"


@pytest.mark.parametrize("older_proxies", [{"node", "other"}])
async def test_a_restarted_controller_asks_for_each_version_once(controller: Any) -> None:
    remote = Remote(controller)
    first, second = proxy_that_serves(TABLE), proxy_that_serves(TABLE)
    second._state = replace(STATE, proxy_id="p2", node_id="other")
    assert await first._next_snapshot(remote) is None, "it waits for the other one"
    assert (await second._next_snapshot(remote)).applications == TABLE.applications
    assert [size < 500 for size in remote.sent] == [True, False, True]
    assert (await first._next_snapshot(remote)).applications == TABLE.applications

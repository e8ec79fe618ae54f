"""Waiting calls, activator and gate, without sockets and with a fake clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc

from sdk._gen import envoy_pb2 as pb
from sdk._ingress.scale_to_zero.activator import Activator
from sdk._ingress.scale_to_zero.gate import Gate
from sdk._ingress.scale_to_zero.waiting_calls import ALLOW, Decision, WaitingCalls
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from tests.support.virtual_time import in_virtual_time

KEY = ("app", "Greeter")
OTHER = ("app", "Fruit")


class Clock:
    """Fake clock with an event loop's ``call_later``; tests advance it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[..., None], *args: Any) -> Clock.Timer:
        timer = self.now + delay, lambda: function(*args)
        self.timers.append(timer)
        return Clock.Timer(self, timer)

    class Timer:
        def __init__(self, clock: Clock, timer: Any) -> None:
            self.clock, self.timer = clock, timer

        def cancel(self) -> None:
            if self.timer in self.clock.timers:
                self.clock.timers.remove(self.timer)

    def forward(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer[0] <= self.now]:
            self.timers.remove(timer)
            timer[1]()


async def test_calls_wait_for_their_deployment_only() -> None:
    waiting = WaitingCalls()
    mine = [waiting.enter(KEY, limit=9) for _ in range(3)]
    other = waiting.enter(OTHER, limit=9)
    assert waiting.counts == {KEY: 3, OTHER: 1}
    waiting.answer(KEY, ALLOW)
    assert [await call for call in mine] == [ALLOW] * 3
    assert waiting.counts == {OTHER: 1}
    assert not other.done()
    waiting.answer(KEY, ALLOW)


async def test_the_limit_applies_per_deployment_and_at_once() -> None:
    waiting = WaitingCalls()
    waits = [waiting.enter(KEY, limit=2) for _ in range(2)]
    refused = waiting.enter(KEY, limit=2)
    assert refused.result().code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 requests already wait for a replica of application 'app'" in refused.result().details
    assert not waiting.enter(OTHER, limit=2).done()
    waits[0].cancel()
    await asyncio.sleep(0)
    assert not waiting.enter(KEY, limit=2).done(), "a cancelled call does not count"


async def test_a_call_ends_at_its_deadline() -> None:
    clock = Clock()
    waiting = WaitingCalls(call_later=clock.call_later)
    soon, later, never = (waiting.enter(KEY, limit=9, timeout_s=seconds) for seconds in (1.0, 2.0, None))
    clock.forward(0.9)
    assert not soon.done()
    clock.forward(0.2)
    assert soon.result() == Decision(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded.", "timeout")
    assert waiting.counts == {KEY: 2}
    waiting.answer(KEY, ALLOW)
    assert (await later, await never) == (ALLOW, ALLOW)
    assert not clock.timers, "no timer outlives its call"


async def test_a_change_is_reported_for_the_first_and_the_last_call() -> None:
    changes: list[dict[Any, int]] = []
    waiting = WaitingCalls(on_change=lambda: changes.append(waiting.counts))
    first, second = waiting.enter(KEY, limit=9), waiting.enter(KEY, limit=9)
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    assert changes == [{KEY: 1}, {}]
    assert not waiting.counts


class Starter:
    """Fake starter of replicas."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.cancelled = 0
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, application: str, deployment: str) -> str:
        self.asked.append((application, deployment))
        try:
            return await asyncio.shield(self.outcome)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_deployment_is_activated_once_for_all_calls_of_all_proxies() -> None:
    starter, clock = Starter(), Clock()
    activator = Activator(starter, clock)
    for _ in range(3):
        assert activator.report("p1", {KEY: 7}) == {}
        assert activator.report("p2", {KEY: 2}) == {}
        await settle()
    assert starter.asked == [KEY]
    assert activator.waiting == {KEY: 9}
    activator.report("p1", {})
    await settle()
    assert not starter.cancelled
    activator.report("p2", {})
    await settle()
    assert starter.cancelled == 1, "no call waits any more"


async def test_waiting_calls_expire_if_a_proxy_stops_reporting() -> None:
    starter, clock = Starter(), Clock()
    activator = Activator(starter, clock)
    activator.report("p1", {KEY: 1})
    await settle()
    clock.forward(2.9)
    activator.expire()
    assert activator.waiting == {KEY: 1}
    clock.forward(0.2)
    activator.expire()
    await settle()
    assert (activator.waiting, starter.cancelled) == ({}, 1)


async def test_a_startup_failure_is_reported_to_every_proxy_and_retried() -> None:
    starter, clock = Starter(), Clock()
    activator = Activator(starter, clock)
    activator.report("p1", {KEY: 1})
    await settle()
    starter.outcome.set_result("OSError: no model")
    await settle()
    assert activator.report("p1", {KEY: 1}) == {KEY: "OSError: no model"}
    assert activator.report("p2", {KEY: 1, OTHER: 1}) == {KEY: "OSError: no model"}
    starter.outcome = asyncio.get_running_loop().create_future()
    clock.forward(2.1)
    assert activator.report("p1", {KEY: 1}) == {}, "the cause may be gone"
    await settle()
    assert starter.asked.count(KEY) == 2
    await activator.stop()


def snapshot(*, endpoints: tuple[Endpoint, ...] = (), max_waiting: int = 5) -> Snapshot:
    deployment = Deployment("Greeter", ("demo.Greeter",), endpoints, max_waiting=max_waiting)
    return Snapshot(1, (Application("app", (deployment,)),))


def check(**headers: str) -> pb.CheckRequest:
    request = pb.CheckRequest()
    request.attributes.context_extensions.update({"application": "app", "deployment": "Greeter"})
    request.attributes.request.http.headers.update({key.replace("_", "-"): value for key, value in headers.items()})
    return request


async def test_the_gate_opens_with_the_first_endpoint_and_closes_before_the_last_one_is_removed() -> None:
    async def report(_: Any) -> dict[Any, str]:
        return {}

    gate = Gate(report, settle_s=0.0, clock=lambda: 0.0)
    ready = snapshot(endpoints=(Endpoint("r1", "127.0.0.1", 4000),))
    gate.on_acknowledged(snapshot())
    call = asyncio.ensure_future(gate._check(check(), None))
    await settle()
    assert gate.waiting == {KEY: 1}
    gate.on_publish(ready)
    await settle()
    assert not call.done(), "Envoy has not acknowledged the endpoint yet"
    gate.on_acknowledged(ready)
    assert (await call).HasField("ok_response")
    assert (await gate._check(check(grpc_timeout="10S"), None)).ok_response.headers[0].header.value == "10000m"
    gate.on_publish(snapshot())
    call = asyncio.ensure_future(gate._check(check(), None))
    await settle()
    assert gate.waiting == {KEY: 1}, "Envoy's last endpoint is about to be removed"
    call.cancel()
    await settle()
    assert not gate.waiting, "the client has cancelled"
    gate.on_acknowledged(replace(snapshot(max_waiting=0), version=2))
    denied = (await gate._check(check(), None)).denied_response
    assert (denied.headers[0].header.key, denied.headers[0].header.value) == ("grpc-status", "14")
    gate.on_acknowledged(Snapshot(3))
    denied = (await gate._check(check(), None)).denied_response
    assert denied.headers[0].header.value == "5"
    assert denied.body.startswith("Application 'app' not found.")


async def test_a_closed_gate_ends_the_calls_that_wait_and_those_that_come() -> None:
    async def report(_: Any) -> dict[Any, str]:
        return {}

    gate = Gate(report, settle_s=0.0, clock=lambda: 0.0)
    gate.on_acknowledged(snapshot())
    waiting = asyncio.ensure_future(gate._check(check(), None))
    await settle()
    gate.close()
    for answer in (await waiting, await gate._check(check(), None)):
        assert answer.denied_response.headers[0].header.value == "14"
        assert answer.denied_response.body == "This node is being drained."


@in_virtual_time
async def test_calls_that_wait_elsewhere_are_reported_again_until_they_end() -> None:
    elsewhere = {KEY: 2}
    reports: list[tuple[float, dict[Any, int]]] = []
    loop = asyncio.get_running_loop()

    async def report(counts: Any) -> dict[Any, str]:
        reports.append((loop.time(), dict(counts)))
        return {}

    gate = Gate(report, elsewhere=lambda: elsewhere, clock=loop.time)
    reporting = loop.create_task(gate.report_forever())
    gate.notify()
    await asyncio.sleep(4)
    assert all(counts == {KEY: 2} for _, counts in reports)
    pauses = [after - before for (before, _), (after, _) in itertools.pairwise(reports)]
    assert max(pauses) < 1, "the controller counts a report for three seconds"
    elsewhere.clear()
    gate.notify()
    await asyncio.sleep(4)
    assert reports[-1][1] == {}
    assert [counts for _, counts in reports].count({}) == 1
    reporting.cancel()

"""The waiting room, and who has replicas started for it: no sockets, and a clock that the tests turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc

from sdk._gen import envoy_pb2 as pb
from sdk._ingress.scale_to_zero.activator import Waking
from sdk._ingress.scale_to_zero.gate import Gate
from sdk._ingress.scale_to_zero.waiting_calls import GOES_ON, Verdict, WaitingRoom
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot

KEY = ("app", "Greeter")
OTHER = ("app", "Fruit")


class Clock:
    """Seconds that pass when a test says so, with an event loop's ``call_later``."""

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


async def test_calls_wait_until_they_are_answered_each_deployments_alone() -> None:
    room = WaitingRoom()
    mine = [room.enter(KEY, limit=9) for _ in range(3)]
    other = room.enter(OTHER, limit=9)
    assert room.counts == {KEY: 3, OTHER: 1}
    room.answer(KEY, GOES_ON)
    assert [await call for call in mine] == [GOES_ON] * 3
    assert room.counts == {OTHER: 1}
    assert not other.done()
    room.answer(KEY, GOES_ON)


async def test_the_limit_is_each_deployments_and_the_refusal_is_immediate() -> None:
    room = WaitingRoom()
    waits = [room.enter(KEY, limit=2) for _ in range(2)]
    refused = room.enter(KEY, limit=2)
    assert refused.result().code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 requests wait for the first replica of application 'app'" in refused.result().details
    assert not room.enter(OTHER, limit=2).done()
    waits[0].cancel()
    await asyncio.sleep(0)
    assert not room.enter(KEY, limit=2).done(), "the one whose client has gone left its place"


async def test_each_call_has_its_deadline() -> None:
    clock = Clock()
    room = WaitingRoom(call_later=clock.call_later)
    soon, later, never = (room.enter(KEY, limit=9, timeout_s=seconds) for seconds in (1.0, 2.0, None))
    clock.forward(0.9)
    assert not soon.done()
    clock.forward(0.2)
    assert soon.result() == Verdict(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded.")
    assert room.counts == {KEY: 2}
    room.answer(KEY, GOES_ON)
    assert (await later, await never) == (GOES_ON, GOES_ON)
    assert not clock.timers, "no timer outlives its call"


async def test_a_change_is_the_first_call_and_the_last() -> None:
    changes: list[dict[Any, int]] = []
    room = WaitingRoom(on_change=lambda: changes.append(room.counts))
    first, second = room.enter(KEY, limit=9), room.enter(KEY, limit=9)
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    assert changes == [{KEY: 1}, {}]
    assert not room.counts


class Starter:
    """Starts replicas when the test says so."""

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


async def test_a_deployment_is_woken_once_however_many_wait_at_however_many_proxies() -> None:
    starter, clock = Starter(), Clock()
    waking = Waking(starter, clock)
    for _ in range(3):
        assert waking.report("p1", {KEY: 7}) == {}
        assert waking.report("p2", {KEY: 2}) == {}
        await settle()
    assert starter.asked == [KEY]
    assert waking.waiting == {KEY: 9}
    waking.report("p1", {})
    await settle()
    assert not starter.cancelled
    waking.report("p2", {})
    await settle()
    assert starter.cancelled == 1, "nobody waits any more"


async def test_a_proxy_that_no_longer_reports_has_no_waiting_calls() -> None:
    starter, clock = Starter(), Clock()
    waking = Waking(starter, clock)
    waking.report("p1", {KEY: 1})
    await settle()
    clock.forward(2.9)
    waking.expire()
    assert waking.waiting == {KEY: 1}
    clock.forward(0.2)
    waking.expire()
    await settle()
    assert (waking.waiting, starter.cancelled) == ({}, 1)


async def test_why_nothing_starts_is_told_to_every_proxy_and_then_it_is_tried_again() -> None:
    starter, clock = Starter(), Clock()
    waking = Waking(starter, clock)
    waking.report("p1", {KEY: 1})
    await settle()
    starter.outcome.set_result("OSError: no model")
    await settle()
    assert waking.report("p1", {KEY: 1}) == {KEY: "OSError: no model"}
    assert waking.report("p2", {KEY: 1, OTHER: 1}) == {KEY: "OSError: no model"}
    starter.outcome = asyncio.get_running_loop().create_future()
    clock.forward(2.1)
    assert waking.report("p1", {KEY: 1}) == {}, "what was in the way may be gone"
    await settle()
    assert starter.asked.count(KEY) == 2
    await waking.stop()


def snapshot(*, endpoints: tuple[Endpoint, ...] = (), max_waiting: int = 5) -> Snapshot:
    deployment = Deployment("Greeter", ("demo.Greeter",), endpoints, max_waiting=max_waiting)
    return Snapshot(1, (Application("app", (deployment,)),))


def check(**headers: str) -> pb.CheckRequest:
    request = pb.CheckRequest()
    request.attributes.context_extensions.update({"application": "app", "deployment": "Greeter"})
    request.attributes.request.http.headers.update({key.replace("_", "-"): value for key, value in headers.items()})
    return request


async def test_the_gate_opens_when_envoy_has_a_replica_and_shuts_before_envoy_loses_the_last() -> None:
    async def report(_: Any) -> dict[Any, str]:
        return {}

    gate = Gate(report, settle_s=0.0)
    ready = snapshot(endpoints=(Endpoint("r1", "127.0.0.1", 4000),))
    gate.serve(snapshot())
    call = asyncio.ensure_future(gate._check(check(), None))
    await settle()
    assert gate.waiting == {KEY: 1}
    gate.expect(ready)
    await settle()
    assert not call.done(), "Envoy does not have it yet"
    gate.serve(ready)
    assert (await call).HasField("ok_response")
    assert (await gate._check(check(grpc_timeout="10S"), None)).ok_response.headers[0].header.value == "10000m"
    gate.expect(snapshot())
    call = asyncio.ensure_future(gate._check(check(), None))
    await settle()
    assert gate.waiting == {KEY: 1}, "the replica that Envoy still has is about to leave"
    call.cancel()
    await settle()
    assert not gate.waiting, "the client has gone"
    gate.serve(replace(snapshot(max_waiting=0), version=2))
    denied = (await gate._check(check(), None)).denied_response
    assert (denied.headers[0].header.key, denied.headers[0].header.value) == ("grpc-status", "14")
    gate.serve(Snapshot(3))
    denied = (await gate._check(check(), None)).denied_response
    assert denied.headers[0].header.value == "5"
    assert denied.body.startswith("Application 'app' not found.")

"""The short form of `make chaos`, on the session's cluster; and tests that its verdict can fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.constant_load import COMPOSED, COMPOSED_BOTH, GRPC_WEB, JSON, LONG, UNARY, CallRecord, Load
from tests.chaos.events import Event, happen, short_form
from tests.chaos.slowness import Slowness, average
from tests.chaos.verdict import Promise, Window, judge, render
from tests.chaos.world import World
from tests.support.deadlines import wait_until


@pytest.fixture(scope="module")
def world(ingress: Any) -> Iterator[World]:
    from sdk._serve.api import delete

    world = World("chaos", replicas=2)
    yield world
    delete(world.caller)
    delete(world.application)


@pytest.fixture(scope="module")
def load(ingress: Any, world: World) -> Iterator[Load]:
    with Load(ingress.address, world.application, world.caller) as load:
        time.sleep(1)
        yield load


@pytest.mark.parametrize("event", list(short_form()), ids=lambda event: event.name)
def test_promises_are_kept(world: World, load: Load, event: Event) -> None:
    began = time.monotonic()
    row = happen(event, world, load)
    assert row.calls > 100
    assert {COMPOSED, COMPOSED_BOTH} <= {call.kind for call in load.calls if call.ended > began}
    # One stream of each lasts 3 s, and longer on a replica that is stopped.
    wait_until(lambda: {GRPC_WEB, JSON} <= {call.kind for call in load.calls if call.ended > began})
    assert row.is_kept, f"\n{render([row])}"


WINDOW = Window(hit=10.0, dead=10.0, converged=12.0, end=20.0)
STEADY = [CallRecord(UNARY, t / 10, t / 10 + 0.01, "OK") for t in range(90, 200)]


def problems(promise: Promise, *calls: CallRecord) -> list[str]:
    return list(judge("event", promise, WINDOW, [*STEADY, *calls]).problems)


def test_a_change_must_not_fail_calls() -> None:
    assert problems(Promise.NOTHING_FAILS) == []
    assert problems(Promise.NOTHING_FAILS, CallRecord(UNARY, 5, 9.9, "UNAVAILABLE")) == [], "before the event"
    assert len(problems(Promise.NOTHING_FAILS, CallRecord(UNARY, 9.9, 10.1, "UNAVAILABLE"))) == 1


@pytest.mark.parametrize(("promise", "allowed_s"), [(Promise.ONLY_IN_FLIGHT, 0.5), (Promise.SOON_BACK, 2.0)])
def test_a_fault_may_fail_calls_in_flight_with_a_retryable_code(promise: Promise, allowed_s: float) -> None:
    assert problems(promise, CallRecord(UNARY, 9.9, 10.1, "UNAVAILABLE")) == []
    assert problems(promise, CallRecord(UNARY, 9.9, 10.1, "INTERNAL")) != []
    assert problems(promise, CallRecord("bidi", 9.0, 10.1, "UNAVAILABLE", messages=3)) == []
    assert problems(promise, CallRecord("bidi", 9.0, 10.1, "INTERNAL", messages=3)) != []
    assert problems(promise, CallRecord("bidi", 9.9, 10.1, "INTERNAL", messages=1)) == [], "a young one is only reset"
    assert problems(promise, CallRecord("bidi", 9.9, 10.1, "INTERNAL")) != []
    assert problems(promise, CallRecord(UNARY, 10 + allowed_s - 0.1, 13, "UNAVAILABLE")) == []
    assert problems(promise, CallRecord(UNARY, 10 + allowed_s + 0.1, 13, "UNAVAILABLE")) != []


def test_time_limits_grow_with_the_slowdown_of_the_machine() -> None:
    late = CallRecord(UNARY, 15, 16, "UNAVAILABLE")
    assert judge("event", Promise.SOON_BACK, WINDOW, [*STEADY, late]).problems
    assert not judge("event", Promise.SOON_BACK, replace(WINDOW, slowness=3.0), [*STEADY, late]).problems
    assert judge("event", Promise.NOTHING_FAILS, replace(WINDOW, slowness=3.0), [*STEADY, late]).problems


def test_the_slowdown_is_measured() -> None:
    assert average([(0.0, 0.03), (1.0, 1.09), (2.0, 2.15)], since=0.5, until=2.0) == 4.0
    assert average([], 0.0, 1.0) == 1.0
    with Slowness() as slowness:
        deadline = time.monotonic() + 20
        while not slowness.samples:
            assert time.monotonic() < deadline, "nothing is measured"
            time.sleep(0.01)
    assert slowness.between(0.0, deadline) >= 1.0


def test_a_gap_without_failed_calls_is_seen() -> None:
    silence = [call for call in STEADY if not 12 < call.ended < 15]
    assert judge("event", Promise.SOON_BACK, WINDOW, silence).problems == ("1 times: no call succeeded for 3.1 s",)


def test_a_stream_longer_than_the_grace_period_ends_unavailable() -> None:
    assert problems(Promise.NOTHING_FAILS, CallRecord(LONG, 9, 15, "UNAVAILABLE")) == []
    assert problems(Promise.NOTHING_FAILS, CallRecord(LONG, 9, 15, "INTERNAL")) != []
    assert problems(Promise.NOTHING_FAILS, CallRecord(LONG, 9, 15, "OK")) != []

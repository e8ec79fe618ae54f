"""Replicas that hang, die or leave in the middle of calls, and what a real Envoy makes of it for clients."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from envoy_rig import Rig, Upstream, rig

from sdk._replica_protocol import SHUTTING_DOWN
from sdk._xds.resources import build

if TYPE_CHECKING:
    from envoy_rig import Apps
    from loops import Run

GET, PUT = "/demo.Store/Get", "/demo.Store/Put"
STORE: Apps = {"one": {"Store": (["demo.Store"], ["a", "b"])}}
LEAVES = (
    "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"
    f"grpc-status: 14\r\ngrpc-message: {SHUTTING_DOWN}\r\n\r\n"
).encode()


def hang(upstream: Upstream) -> None:
    upstream.hold.clear()
    upstream.alive.clear()


def recover(upstream: Upstream) -> None:
    upstream.hold.set()
    upstream.alive.set()


async def publish_store(it: Rig) -> None:
    """Publishes a service whose Get may be repeated."""
    snapshot = it.snapshot(STORE)
    (app,) = snapshot.applications
    store = replace(app.deployments[0], idempotent=(GET,))
    snapshot = replace(snapshot, applications=(replace(app, deployments=(store,)),))
    await asyncio.wait_for(it.ads.publish(build(snapshot, it.config)), 5)


async def call_until_caught(
    upstream: Upstream, call: Callable[[], Coroutine[Any, Any, str]]
) -> list[asyncio.Task[str]]:
    """Calls until two more calls are at this upstream."""
    calls, wanted = [], upstream.calls + 2
    while upstream.calls < wanted:
        calls.append(asyncio.create_task(call()))
        await asyncio.sleep(0.01)
        assert len(calls) < 500
    return calls


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_a_replica_that_hangs_gets_no_new_calls_after_two_seconds_and_keeps_those_it_has(run: Run) -> None:
    async def scenario() -> None:
        async with rig("a", "b") as it:
            await it.publish(STORE)
            assert {await it.answers(PUT) for _ in range(20)} == {"a", "b"}
            # Both clusters ask at the start, that by load again three seconds later; by then it has seen the calls.
            await eventually(lambda: it.upstreams["b"].questions >= 3)
            hang(it.upstreams["b"])
            caught = await call_until_caught(it.upstreams["b"], lambda: it.answers(PUT, timeout=20))
            await asyncio.sleep(2)
            assert {await it.answers(PUT) for _ in range(20)} == {"a"}
            waiting = [call for call in caught if not call.done()]
            assert waiting
            hang(it.upstreams["a"])
            await asyncio.sleep(2)
            late = asyncio.create_task(it.answers(PUT))
            await asyncio.sleep(0.2)
            assert not late.done(), "when all hang, calls wait for them"
            recover(it.upstreams["a"])
            recover(it.upstreams["b"])
            assert await late in ("a", "b")
            assert {await call for call in waiting} == {"b"}, "it was busy, and its calls were left to it"
            answers = set()
            deadline = time.monotonic() + 5
            while "b" not in answers:
                assert time.monotonic() < deadline, "it is back, and must get calls again"
                answers.add(await it.answers(PUT))

    run(scenario())


def test_a_new_replica_is_called_at_once_whatever_it_says_of_its_life(run: Run) -> None:
    async def scenario() -> None:
        async with rig("a", "b") as it:
            await it.publish({"one": {"Store": (["demo.Store"], [])}})
            assert await it.answers(PUT) == "UNAVAILABLE"
            it.upstreams["a"].alive.clear()
            await it.publish({"one": {"Store": (["demo.Store"], ["a"])}})
            assert await it.answers(PUT) == "a"
            await it.publish({"one": {"Store": (["demo.Store"], ["b"])}})
            assert await it.answers(PUT) == "b", "what has left is gone, and not kept for being healthy"

    run(scenario())


@pytest.mark.parametrize("last_words", [b"", LEAVES], ids=["dies", "says that it leaves"])
def test_calls_of_idempotent_methods_go_to_another_replica(run: Run, last_words: bytes) -> None:
    async def scenario() -> None:
        async with rig("a", "b") as it:
            await publish_store(it)
            bad = it.upstreams["b"]
            bad.last_words = last_words
            bad.hold.clear()
            models = itertools.count()
            gets = await call_until_caught(bad, lambda: it.answers(GET))
            gets += await call_until_caught(bad, lambda: it.answers(GET, ("multiplexed_model_id", str(next(models)))))
            bad.hold.set()
            assert {await call for call in gets} == {"a"}

    run(scenario())


def test_calls_of_other_methods_are_not_repeated(run: Run) -> None:
    async def scenario() -> None:
        async with rig("a", "b") as it:
            await publish_store(it)
            bad = it.upstreams["b"]
            bad.last_words = b""
            bad.hold.clear()
            puts = await call_until_caught(bad, lambda: it.answers(PUT))
            calls = bad.calls
            bad.hold.set()
            answers = [await call for call in puts]
            assert answers.count("UNAVAILABLE") == calls, "each that it had begun, and no other"
            assert set(answers) <= {"UNAVAILABLE", "a"}

    run(scenario())


def test_what_a_handler_answers_is_not_repeated(run: Run) -> None:
    async def scenario() -> None:
        async with rig("a", "b") as it:
            await publish_store(it)
            for upstream in it.upstreams.values():
                upstream.last_words = LEAVES.replace(SHUTTING_DOWN.encode(), b"come back later")
            assert await it.answers(GET) == "UNAVAILABLE"
            assert sum(upstream.calls for upstream in it.upstreams.values()) == 1

    run(scenario())


def test_a_request_too_long_to_keep_is_passed_on_and_not_repeated(run: Run) -> None:
    async def scenario() -> None:
        async with rig("a", "b") as it:
            await publish_store(it)
            long = bytes(3 << 20)
            code, _, _ = await it.call(GET, request=long)
            assert code == "OK"
            for upstream in it.upstreams.values():
                upstream.last_words = b""
            code, _, _ = await it.call(GET, request=long)
            assert code == "UNAVAILABLE"
            calls = [upstream.calls for upstream in it.upstreams.values()]
            assert sum(calls) == 2

    run(scenario())

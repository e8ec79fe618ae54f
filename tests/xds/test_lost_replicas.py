"""Replicas that hang, die or leave during calls, behind a real Envoy."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from sdk._replica_protocol import SHUTTING_DOWN
from sdk._xds.resources import build_resources
from sdk._xds.retries import BUFFERED_BYTES
from sdk.client import RetryPolicy
from tests.support.envoy_rig import Rig, Upstream, rig
from tests.support.loops import PATIENCE_S

if TYPE_CHECKING:
    from tests.support.envoy_rig import Apps

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


async def publish_store(it: Rig, replicas: str = "ab") -> None:
    """Publish a service with an idempotent method Get."""
    snapshot = it.snapshot({"one": {"Store": (["demo.Store"], list(replicas))}})
    (app,) = snapshot.applications
    store = replace(app.deployments[0], idempotent=(GET,))
    snapshot = replace(snapshot, applications=(replace(app, deployments=(store,)),))
    await asyncio.wait_for(it.ads.publish(build_resources(snapshot, it.config)), PATIENCE_S)


async def call_until_caught(
    upstream: Upstream, call: Callable[[], Coroutine[Any, Any, str]]
) -> list[asyncio.Task[str]]:
    """Make calls until two more have arrived at this upstream."""
    calls, wanted = [], upstream.calls + 2
    while upstream.calls < wanted:
        calls.append(asyncio.create_task(call()))
        await asyncio.sleep(0.01)
        assert len(calls) < 500
    return calls


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def fails_its_health_check(it: Rig, upstream: Upstream) -> None:
    """Return when the cluster that balances by load has taken a replica out."""
    flag = f"one#Store::127.0.0.1:{upstream.port}::health_flags::/failed_active_hc"
    async with asyncio.timeout(PATIENCE_S):
        while flag not in await it.admin("/clusters"):
            await asyncio.sleep(0.01)


async def test_a_replica_that_fails_its_health_check_gets_no_new_calls_and_keeps_its_own() -> None:
    async with rig("a", "b") as it:
        await it.publish(STORE)
        assert {await it.answers(PUT) for _ in range(20)} == {"a", "b"}
        # Both clusters check at the start, and the cluster by load again after 3 s; by then it has had calls.
        await eventually(lambda: it.upstreams["b"].health_checks >= 3)
        began = time.monotonic()
        await eventually(lambda: it.upstreams["b"].health_checks >= 6)
        assert time.monotonic() - began < 5, "three checks take 2.3 s, and 7 s where no call has come"
        hang(it.upstreams["b"])
        caught = await call_until_caught(it.upstreams["b"], lambda: it.answers(PUT, timeout=20))
        await fails_its_health_check(it, it.upstreams["b"])
        assert {await it.answers(PUT) for _ in range(20)} == {"a"}
        waiting = [call for call in caught if not call.done()]
        assert waiting
        hang(it.upstreams["a"])
        await fails_its_health_check(it, it.upstreams["a"])
        arrived = sum(upstream.calls for upstream in it.upstreams.values())
        late = asyncio.create_task(it.answers(PUT))
        await eventually(lambda: sum(upstream.calls for upstream in it.upstreams.values()) > arrived)
        assert not late.done(), "calls wait if all replicas hang"
        recover(it.upstreams["a"])
        recover(it.upstreams["b"])
        assert await late in ("a", "b")
        assert {await call for call in waiting} == {"b"}, "it was busy, and kept its calls"
        answers = set()
        deadline = time.monotonic() + PATIENCE_S
        while "b" not in answers:
            assert time.monotonic() < deadline, "it has recovered, and must get calls again"
            answers.add(await it.answers(PUT))


async def test_a_new_replica_gets_calls_before_its_first_health_check() -> None:
    async with rig("a", "b") as it:
        await it.publish({"one": {"Store": (["demo.Store"], [])}})
        assert await it.answers(PUT) == "UNAVAILABLE"
        it.upstreams["a"].alive.clear()
        await it.publish({"one": {"Store": (["demo.Store"], ["a"])}})
        assert await it.answers(PUT) == "a"
        await it.publish({"one": {"Store": (["demo.Store"], ["b"])}})
        assert await it.answers(PUT) == "b", "a removed replica is not kept because it is healthy"


@pytest.mark.parametrize("raw_response", [b"", LEAVES], ids=["dies", "shuts down"])
async def test_calls_of_idempotent_methods_are_retried_on_another_replica(raw_response: bytes) -> None:
    async with rig("a", "b") as it:
        await publish_store(it)
        bad = it.upstreams["b"]
        bad.raw_response = raw_response
        bad.hold.clear()
        models = itertools.count()
        gets = await call_until_caught(bad, lambda: it.answers(GET))
        gets += await call_until_caught(bad, lambda: it.answers(GET, ("multiplexed_model_id", str(next(models)))))
        bad.hold.set()
        assert {await call for call in gets} == {"a"}


async def test_calls_of_other_methods_are_not_retried() -> None:
    async with rig("a", "b") as it:
        await publish_store(it)
        bad = it.upstreams["b"]
        bad.raw_response = b""
        bad.hold.clear()
        puts = await call_until_caught(bad, lambda: it.answers(PUT))
        calls = bad.calls
        bad.hold.set()
        answers = [await call for call in puts]
        assert answers.count("UNAVAILABLE") == calls, "each call that it had received, and no other"
        assert set(answers) <= {"UNAVAILABLE", "a"}


async def test_a_response_of_a_handler_is_not_retried() -> None:
    async with rig("a", "b") as it:
        await publish_store(it)
        for upstream in it.upstreams.values():
            upstream.raw_response = LEAVES.replace(SHUTTING_DOWN.encode(), b"come back later")
        assert await it.answers(GET) == "UNAVAILABLE"
        assert sum(upstream.calls for upstream in it.upstreams.values()) == 1


async def test_a_request_up_to_the_buffer_limit_is_retried() -> None:
    async with rig("a", "b") as it:
        await publish_store(it)
        for upstream in it.upstreams.values():
            upstream.raw_response = b""
        code, _, _ = await it.call(GET, request=bytes(BUFFERED_BYTES - 5))
        assert code == "UNAVAILABLE"
        calls = [upstream.calls for upstream in it.upstreams.values()]
        assert calls == [1, 1]


async def test_a_request_above_the_buffer_limit_is_forwarded_and_not_retried() -> None:
    async with rig("a", "b") as it:
        await publish_store(it)
        long = bytes(3 << 20)
        code, _, _ = await it.call(GET, request=long)
        assert code == "OK"
        for upstream in it.upstreams.values():
            upstream.raw_response = b""
        code, _, _ = await it.call(GET, request=long)
        assert code == "UNAVAILABLE"
        calls = [upstream.calls for upstream in it.upstreams.values()]
        assert sum(calls) == 2


def channel_with_retries(it: Rig) -> grpc.aio.Channel:
    """Return a channel with the retries of a generated client."""
    config = RetryPolicy(methods="all").service_config(())
    options = [("grpc.service_config", json.dumps(config)), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{it.port}", options=options)


@pytest.mark.parametrize("is_model_call", [False, True])
async def test_client_and_proxy_together_repeat_a_call_once_after_a_replica_was_lost(is_model_call: bool) -> None:
    async with rig(*"abcdef") as it:
        await publish_store(it, "abcdef")
        for upstream in it.upstreams.values():
            upstream.raw_response = b""  # each call is the end of its replica
        async with channel_with_retries(it) as channel:
            call = channel.unary_unary(GET)(
                b"", wait_for_ready=True, metadata=[("multiplexed_model_id", "m")] if is_model_call else None
            )
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
            assert "lost" in (await call.details() or "")
        assert sum(upstream.calls for upstream in it.upstreams.values()) == 2


async def test_a_client_may_repeat_a_call_that_the_proxy_does_not_and_once() -> None:
    async with rig(*"abcdef") as it:
        await publish_store(it, "abcdef")
        for upstream in it.upstreams.values():
            upstream.raw_response = b""
        async with channel_with_retries(it) as channel:
            assert await channel.unary_unary(PUT)(b"", wait_for_ready=True).code() == grpc.StatusCode.UNAVAILABLE
        assert sum(upstream.calls for upstream in it.upstreams.values()) == 2


async def test_clients_go_on_to_repeat_calls_that_replicas_refused() -> None:
    async with rig("a", "b") as it:
        await publish_store(it)
        for upstream in it.upstreams.values():
            await upstream.stop()
        async with channel_with_retries(it) as channel:
            call = channel.unary_unary(GET)(b"", wait_for_ready=True)
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
            assert "No replica accepted a connection" in (await call.details() or "")
            assert "grpc-retry-pushback-ms" not in dict(tuple(await call.trailing_metadata()))

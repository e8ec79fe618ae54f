"""The feed from a node's proxy to the programs that call deployments, over a real socket."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sdk._channel import target as targets
from sdk._channel.feed import State, decode_interest, decode_state, encode_interest, encode_state
from sdk._channel.target import Target, Targets
from sdk._ingress.endpoint_feed import EndpointFeed
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from tests.support.served_handle import NamedHandle
from tests.support.wire_rig import until


class Ray:
    """The parts of the backend that need Ray."""

    def __init__(self) -> None:
        self.node = uuid.uuid4().hex
        self.with_ingress = True

    def node_id(self) -> str:
        return self.node

    def has_ingress(self) -> bool:
        return self.with_ingress


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    ray = Ray()
    monkeypatch.setattr(targets, "backend", lambda: ray)
    return ray


@asynccontextmanager
async def listening(ray: Ray) -> AsyncIterator[EndpointFeed]:
    feed = EndpointFeed()
    await feed.listen(ray.node)
    try:
        yield feed
    finally:
        feed.stop()


@pytest.fixture
async def callers() -> AsyncIterator[Targets]:
    callers = Targets(asyncio.get_running_loop())
    yield callers
    callers.close()
    await asyncio.sleep(0.01)


def table(version: int, *names: str, inner: bool = False, max_waiting: int = 0) -> Snapshot:
    endpoints = tuple(Endpoint(name, "10.0.0.1", 4000, "there", f"socket of {name}") for name in names)
    deployment = Deployment("D", ("t.T",), endpoints, max_waiting=max_waiting, is_exposed=not inner)
    applications = (Application("app", (deployment,)),)
    return Snapshot(version, () if inner else applications, inner=applications if inner else ())


def replicas(target: Target) -> list[str]:
    return sorted(replica.address.replica_id for replica in target.replicas)


def handle() -> Any:
    return NamedHandle("D")


def test_messages_survive_the_line() -> None:
    state = State("a", "b", True, (), "why\nnot", 3)
    assert decode_state(encode_state(state)) == state
    assert decode_interest(encode_interest(("a", "b\n"), 3)) == (("a", "b\n"), 3)
    with pytest.raises(ValueError, match="expected application, deployment and number"):
        decode_interest(b'["a", 1, "b"]\n')


@pytest.mark.parametrize("inner", [False, True])
async def test_callers_learn_of_every_change(ray: Ray, callers: Targets, inner: bool) -> None:
    async with listening(ray) as feed:
        target = callers.find(handle())
        assert not target.is_resolved  # the proxy has no table yet
        feed.publish(table(1, "a", inner=inner))
        await until(lambda: replicas(target) == ["a"])
        feed.publish(table(2, "a", "b", inner=inner))
        await until(lambda: replicas(target) == ["a", "b"])
        feed.publish(table(3, inner=inner))
        await until(lambda: not target.is_ready)
        assert target._is_known


async def test_an_unknown_deployment_is_left_to_rays_handle(ray: Ray, callers: Targets) -> None:
    async with listening(ray) as feed:
        feed.publish(Snapshot(1))
        target = callers.find(handle())
        assert await target.wait_ready("") is None
        feed.publish(table(2, "a"))
        await until(lambda: target.is_ready)


async def test_without_an_ingress_rays_handle_is_used_at_once(ray: Ray, callers: Targets) -> None:
    ray.with_ingress = False
    assert await asyncio.wait_for(callers.find(handle()).wait_ready(""), 2) is None


async def test_a_restart_of_the_proxy_goes_unnoticed(ray: Ray, callers: Targets) -> None:
    async with listening(ray) as feed:
        feed.publish(table(1, "a"))
        target = callers.find(handle())
        await until(lambda: replicas(target) == ["a"])
    await asyncio.sleep(0.05)
    assert replicas(target) == ["a"]
    async with listening(ray) as feed:
        await asyncio.sleep(0.15)
        assert replicas(target) == ["a"]  # the new proxy has no table yet
        feed.publish(table(2, "b"))
        await until(lambda: replicas(target) == ["b"])


async def test_waiting_calls_are_counted_and_told_why_nothing_starts(ray: Ray, callers: Targets) -> None:
    async with listening(ray) as feed:
        feed.publish(table(1, max_waiting=10))
        target = callers.find(handle())
        waiting = asyncio.ensure_future(target.wait_ready(""))
        await until(lambda: feed.waiting == {("app", "D"): 1})
        feed.fail(("app", "D"), "OSError: no file")
        with pytest.raises(Exception, match="can't start: OSError: no file"):
            await waiting
        await until(lambda: not feed.waiting)
        waiting = asyncio.ensure_future(target.wait_ready(""))
        await until(lambda: feed.waiting == {("app", "D"): 1})
        feed.publish(table(2, "a", max_waiting=10))
        replica = await waiting
        assert replica is not None
        assert replica.address.socket == "socket of a"


async def test_the_waiting_calls_of_a_program_that_ends_no_longer_count(ray: Ray, callers: Targets) -> None:
    async with listening(ray) as feed:
        feed.publish(table(1, max_waiting=10))
        waiting = asyncio.ensure_future(callers.find(handle()).wait_ready(""))
        await until(lambda: feed.waiting)
        callers.close()
        await until(lambda: not feed.waiting)
        waiting.cancel()

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
from sdk._ingress import endpoint_feed
from sdk._ingress.endpoint_feed import EndpointFeed
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from tests.support.served_handle import NamedHandle
from tests.support.virtual_time import in_virtual_time
from tests.support.wire_rig import until


class Ray:
    """The parts of the backend that need Ray."""

    def __init__(self) -> None:
        self.node = uuid.uuid4().hex
        self.with_ingress = True
        self.distant: DistantProxy | None = None

    def node_id(self) -> str:
        return self.node

    def has_ingress(self) -> bool:
        return self.with_ingress

    def distant_proxy(self, node_id: str) -> DistantProxy | None:
        return self.distant


class DistantProxy:
    """The proxy of another node, and a record of the calls to it."""

    def __init__(self) -> None:
        self.feed = EndpointFeed()
        self.polls: list[str] = []
        self.notes = 0
        self.is_restarting = False

    async def poll(self, program_id: str, interests: dict[Any, int]) -> list[bytes]:
        if self.is_restarting:
            raise ConnectionError("the actor died")
        self.polls.append(program_id)
        return await self.feed.poll(program_id, interests)

    def note(self, program_id: str, interests: dict[Any, int]) -> None:
        self.notes += 1
        self.feed.note(program_id, interests)


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


async def test_a_program_on_a_node_without_a_proxy_asks_that_of_another(ray: Ray, callers: Targets) -> None:
    distant = ray.distant = DistantProxy()
    distant.feed.publish(table(1, "a"))
    target = callers.find(handle())
    await until(lambda: replicas(target) == ["a"])
    polls = len(distant.polls)
    for _ in range(1000):
        assert callers.find(handle()) is target
        assert target.replicas.choose(0.0) is not None
    await asyncio.sleep(0)
    assert (len(distant.polls), distant.notes) == (polls, 0), "calls ask nothing"
    distant.feed.publish(table(2, "b"))
    await until(lambda: replicas(target) == ["b"])
    await until(lambda: len(distant.polls) == polls + 1)
    other = callers.find(NamedHandle("Other"))
    await until(lambda: other.is_resolved)
    assert distant.notes == 1
    assert len(set(distant.polls)) == 1


async def test_calls_on_a_node_without_a_proxy_wait_for_the_first_replica(ray: Ray, callers: Targets) -> None:
    distant = ray.distant = DistantProxy()
    distant.feed.publish(table(1, max_waiting=10))
    target = callers.find(handle())
    waiting = asyncio.ensure_future(target.wait_ready(""))
    await until(lambda: distant.feed.waiting == {("app", "D"): 1})
    distant.feed.fail(("app", "D"), "OSError: no file")
    with pytest.raises(Exception, match="can't start: OSError: no file"):
        await waiting
    await until(lambda: not distant.feed.waiting)


async def test_after_a_restart_of_the_proxy_of_another_node_every_state_is_sent_again(
    ray: Ray, callers: Targets
) -> None:
    before = ray.distant = DistantProxy()
    before.feed.publish(table(1, "a"))
    target = callers.find(handle())
    await until(lambda: replicas(target) == ["a"])
    before.is_restarting = True
    after = ray.distant = DistantProxy()
    after.feed.publish(table(2, "b"))
    before.feed.stop()
    await until(lambda: replicas(target) == ["b"])
    assert set(after.polls).isdisjoint(before.polls)


async def test_the_proxy_of_this_node_is_preferred_once_there_is_one(
    ray: Ray, callers: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_DISTANT_S", 0.05)
    monkeypatch.setattr(endpoint_feed, "_POLL_S", 0.05)
    distant = ray.distant = DistantProxy()
    distant.feed.publish(table(1, "a"))
    target = callers.find(handle())
    await until(lambda: replicas(target) == ["a"])
    async with listening(ray) as feed:
        feed.publish(table(2, "b"))
        await until(lambda: replicas(target) == ["b"])


@in_virtual_time
async def test_a_program_that_no_longer_polls_is_forgotten() -> None:
    feed = EndpointFeed()
    feed.publish(table(1, max_waiting=10))
    key = ("app", "D")
    (line,) = await feed.poll("p", {key: 2})
    assert decode_state(line) == State("app", "D", True, max_waiting=10)
    assert await feed.poll("p", {key: 2}) == [], "nothing has changed for ten seconds"
    assert asyncio.get_running_loop().time() == pytest.approx(10)
    await asyncio.sleep(4.9)
    assert feed.waiting == {key: 2}
    assert await feed.poll("p", {key: 1}) == []
    assert feed.waiting == {key: 1}
    await asyncio.sleep(5.1)
    assert not feed.waiting
    feed.publish(table(2, "a"))
    assert not feed._interests


@in_virtual_time
async def test_only_the_newest_state_waits_for_the_next_poll() -> None:
    feed = EndpointFeed()
    feed.publish(table(1, "a"))
    await feed.poll("p", {("app", "D"): 0})
    for number in range(100):
        feed.publish(table(2 + number, f"r{number}"))
    (line,) = await feed.poll("p", {("app", "D"): 0})
    assert [address.replica_id for address in decode_state(line).addresses] == ["r99"]

"""The feed from a node's proxy to the programs that call deployments, over a real socket."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk._channel import target as targets
from sdk._channel.feed import (
    Address,
    State,
    StateChange,
    decode_change,
    decode_interest,
    encode_change,
    encode_interest,
)
from sdk._channel.target import Target, Targets
from sdk._ingress import endpoint_feed
from sdk._ingress.endpoint_feed import EndpointFeed
from sdk._xds.snapshot import Application, Deployment, Endpoint, Endpoints, Snapshot
from tests.support.served_handle import NamedHandle
from tests.support.virtual_time import in_virtual_time
from tests.support.wire_rig import until


class Ray:
    """The parts of the backend that need Ray."""

    def __init__(self) -> None:
        self.node = uuid.uuid4().hex
        self.with_ingress = True
        self.distant: DistantProxy | None = None
        self.unanswered = 0

    def node_id(self) -> str:
        return self.node

    def has_ingress(self) -> bool:
        if self.unanswered:
            self.unanswered -= 1
            raise ConnectionError("the GCS does not answer")
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
    ray, real, thread = Ray(), targets.backend, get_ident()
    # After tests with a cluster, programs on the loops of other threads still look for it: they must not find this.
    monkeypatch.setattr(targets, "backend", lambda: ray if get_ident() == thread else real())
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
    state = State("a", "b", True, (Address("r", "10.0.0.1", 1, "n", "s"),), "why\nnot", 3)
    change = StateChange(6, 7, state, ("x", "y"))
    assert decode_change(encode_change(change)) == change
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


def addresses(endpoints: Iterable[Endpoint]) -> list[Address]:
    return [Address(*endpoint) for endpoint in endpoints]


FEED_STEPS = st.lists(
    st.one_of(
        # A table with this deployment, or without it.
        st.tuples(
            st.just("publish"), st.none() | st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([1, 2]))
        ),
        st.tuples(st.just("fail"), st.just(None)),
        # Programs that connect, poll, lose an answer, or begin again.
        st.tuples(st.just("connect"), st.just(None)),
        st.tuples(st.just("poll"), st.sampled_from(["taken", "lost"])),
        st.tuples(st.just("poll again"), st.just(None)),
    ),
    max_size=25,
)


class Written:
    """A connection that takes what is written."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.write = take
        self.transport = self

    def get_write_buffer_size(self) -> int:
        return 0


@given(FEED_STEPS)
def test_callers_that_are_fed_by_differences_have_the_whole_state(steps: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        loop, key = asyncio.get_running_loop(), ("app", "D")

        def new_target() -> Target:
            return Target(key, NamedHandle("D"), loop, "there", lambda _: None)

        feed, connected = EndpointFeed(), []
        polling, session = new_target(), 0
        table: Snapshot | None = None
        is_told = False
        for number, (kind, value) in enumerate(steps, 1):
            if kind == "publish":
                served = [Endpoint(name, "10.0.0.1", port, "there") for name, port in (value or {}).items()]
                deployments = (Deployment("D", ("t.T",), served),)
                table = Snapshot(number, (Application("app", deployments),) if value is not None else ())
                feed.publish(table)
            elif kind == "fail":
                feed.fail(key, "no memory")
            elif kind == "connect":
                target = new_target()
                writer: Any = Written(lambda line, target=target: target.change(decode_change(line)))
                program = endpoint_feed._Connected(writer, feed._encode)
                feed._interests[program] = {}
                feed._take(program, key, 1)
                connected.append(target)
            elif table is not None:
                session += kind == "poll again"
                program = feed._note(f"p{session}", {key: 1})
                is_lost = False
                for line in program.take_lines():
                    is_lost = value == "lost"
                    if not is_lost:
                        polling.change(decode_change(line))
                session += is_lost  # its call failed: it begins again under another name
                is_told = not is_lost
        feed.publish(Snapshot(99, (table or Snapshot(0)).applications))
        newest = table.applications[0].deployments[0].endpoints if table and table.applications else ()
        if is_told:
            for line in feed._note(f"p{session}", {key: 1}).take_lines():
                polling.change(decode_change(line))
            connected.append(polling)
        for target in connected:
            assert sorted(replica.address for replica in target.replicas) == addresses(newest)
            sides = [*target.replicas._near, *target.replicas._far]
            assert sorted(map(id, sides)) == sorted(map(id, target.replicas))

    asyncio.run(run())


def feed_of(*names: str) -> tuple[EndpointFeed, list[bytes]]:
    """Return a feed with a program on its node, and the lines that this gets."""
    feed, lines = EndpointFeed(), []
    feed.publish(table(1, *names))
    writer: Any = Written(lines.append)
    program = endpoint_feed._Connected(writer, feed._encode)
    feed._interests[program] = {}
    feed._take(program, ("app", "D"), 0)
    return feed, lines


def test_the_size_of_a_change_does_not_depend_on_the_number_of_replicas() -> None:
    sizes = []
    for number in 1_000, 10_000:
        names = [f"r{n:05}" for n in range(number)]
        feed, lines = feed_of(*names)
        feed.publish(table(2, *names[1:]))
        sizes.append(len(lines[1]))
        assert len(lines) == 2
    assert sizes[0] == sizes[1] < 100


def test_programs_with_the_same_state_share_a_line() -> None:
    feed, lines = feed_of("a", "b")
    other: list[bytes] = []
    writer: Any = Written(other.append)
    program = endpoint_feed._Connected(writer, feed._encode)
    feed._interests[program] = {}
    feed._take(program, ("app", "D"), 0)
    feed.publish(table(2, "a"))
    assert [mine is theirs for mine, theirs in zip(lines, other, strict=True)] == [True, True]


async def test_a_deployment_of_this_process_is_no_concern_of_the_proxy(
    ray: Ray, callers: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = NamedHandle("Mine")
    state = State("app", "Mine", True, (Address("m", "127.0.0.1", 0, "", "socket"),))
    monkeypatch.setattr(targets, "local_lookup", lambda each: state if each is mine else None)
    async with listening(ray) as feed:
        feed.publish(table(1, "a"))
        other = callers.find(handle())
        await until(lambda: replicas(other) == ["a"])
        local = callers.find(mine)
        callers.find(NamedHandle("Absent"))
        await until(lambda: len(*feed._interests.values()) == 2)  # a line for the one in between would have come before
        assert ("app", "Mine") not in next(iter(feed._interests.values()))
        assert replicas(local) == ["m"]


async def test_a_caller_that_has_missed_a_change_connects_again(ray: Ray, callers: Targets) -> None:
    async with listening(ray) as feed:
        feed.publish(table(1, "a"))
        target = callers.find(handle())
        await until(lambda: replicas(target) == ["a"])
        (program,) = feed._interests
        key = ("app", "D")
        program.held[key] = (7, Endpoints([Endpoint("x", "10.0.0.1", 1)]))
        feed.publish(table(2, "a", "b"))
        await until(lambda: replicas(target) == ["a", "b"])
        assert program not in feed._interests


async def test_a_caller_that_has_missed_an_answer_of_another_node_begins_again(ray: Ray, callers: Targets) -> None:
    distant = ray.distant = DistantProxy()
    distant.feed.publish(table(1, "a"))
    target = callers.find(handle())
    await until(lambda: replicas(target) == ["a"])
    (program,) = distant.feed._interests
    program.held["app", "D"] = (7, Endpoints([Endpoint("x", "10.0.0.1", 1)]))
    distant.feed.publish(table(2, "a", "b"))
    await until(lambda: replicas(target) == ["a", "b"])
    assert len(set(distant.polls)) == 2


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


async def fed_from_afar(ray: Ray, callers: Targets, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Return a target whose replica "a" the proxy of another node has sent, and that soon looks for this node's."""
    monkeypatch.setattr(targets, "_DISTANT_S", 0.05)
    monkeypatch.setattr(endpoint_feed, "_POLL_S", 0.05)
    ray.distant = DistantProxy()
    ray.distant.feed.publish(table(1, "a"))
    target = callers.find(handle())
    await until(lambda: replicas(target) == ["a"])
    return target


async def test_the_proxy_of_this_node_is_preferred_once_there_is_one(
    ray: Ray, callers: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await fed_from_afar(ray, callers, monkeypatch)
    async with listening(ray) as feed:
        feed.publish(table(2, "b"))
        await until(lambda: replicas(target) == ["b"])


async def test_what_the_proxy_of_another_node_knows_does_not_count_after_that_of_this_node(
    ray: Ray, callers: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await fed_from_afar(ray, callers, monkeypatch)
    async with listening(ray) as feed:
        feed.publish(table(2, "b"))  # the first version of this feed, as "a" is of the other one
        await until(lambda: replicas(target) == ["b"])
        ray.distant.feed.publish(table(3, "a", "c"))
    await until(lambda: len(target.replicas) == 2)
    assert replicas(target) == ["a", "c"]


async def test_callers_keep_asking_while_ray_does_not_answer(ray: Ray, callers: Targets) -> None:
    ray.unanswered = 3
    distant = ray.distant = DistantProxy()
    distant.feed.publish(table(1, "a"))
    target = callers.find(handle())
    await until(lambda: replicas(target) == ["a"])
    assert not ray.unanswered


async def test_a_program_that_joins_another_cluster_asks_the_proxy_of_its_new_node(ray: Ray, callers: Targets) -> None:
    async with listening(ray) as feed:
        feed.publish(table(1, "a"))
        target = callers.find(handle())
        await until(lambda: replicas(target) == ["a"])
    ray.node = "there"
    async with listening(ray) as feed:
        feed.publish(table(2, "b"))
        await until(lambda: replicas(target) == ["b"])
    assert [replica.is_local for replica in target.replicas] == [True]


@in_virtual_time
async def test_a_proxy_whose_machine_is_gone_is_not_asked_for_ever(ray: Ray, callers: Targets) -> None:
    asked = []

    class Gone:
        async def poll(self, program_id: str, interests: dict[Any, int]) -> list[bytes]:
            asked.append(program_id)
            await asyncio.Future()
            raise AssertionError

    await callers._poll(Gone())
    assert asyncio.get_running_loop().time() == 20
    assert callers._program_id not in asked


async def test_a_note_of_a_program_that_polled_an_earlier_proxy_leaves_nothing() -> None:
    feed = EndpointFeed()
    feed.publish(table(1, max_waiting=10))
    feed.note("p", {("app", "D"): 1})
    assert not feed.waiting
    assert not feed._interests


@in_virtual_time
async def test_a_program_that_no_longer_polls_is_forgotten() -> None:
    feed = EndpointFeed()
    feed.publish(table(1, max_waiting=10))
    key = ("app", "D")
    (line,) = await feed.poll("p", {key: 2})
    assert decode_change(line) == StateChange(0, 1, State("app", "D", True, max_waiting=10))
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
    change = decode_change(line)
    assert [address.replica_id for address in change.state.addresses] == ["r99"]
    assert (change.base, change.version, change.removed) == (1, 101, ("a",))

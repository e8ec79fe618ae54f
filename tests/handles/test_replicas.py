"""The choice of a replica, replicas that leave or die, and what their callers notice of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import cycle, product
from typing import Any

import pytest
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle

from sdk._channel.feed import Address
from sdk._channel.replicas import Replicas
from sdk._channel.target import count_retries
from sdk._replica_protocol import REPLICA_DIED
from sdk._wire.crash_trailers import encode_trailers
from sdk.errors import RpcError
from tests.support.served_handle import Deployment, deployment
from tests.support.wire_rig import until


class Named(AsyncProbeBase):
    """Answers with its name; ``wait`` waits for ``release``."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.release = asyncio.Event()
        self.running = 0
        self.most = 0
        self.ended = 0

    async def Unary(self, request: Ask) -> Told:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if request.act == "wait":
                await self.release.wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
            self.ended += 1
        return Told(text=self.name)

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        for number in range(request.number):
            await asyncio.sleep(0)
            yield Told(number=number, text=self.name)
        if request.act == "wait":
            await self.release.wait()

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        return Told(number=len([request async for request in requests]))


def addresses(*names: str, node: str = "here") -> list[Address]:
    return [Address(name, "10.0.0.1", 4000, node, name) for name in names]


def test_a_change_keeps_all_other_replicas() -> None:
    replicas = Replicas("here")
    replicas.update([*addresses("a", "b"), *addresses("c", node="there")])
    kept = {replica.address.replica_id: replica for replica in replicas}
    replicas.change([*addresses("b", node="there"), *addresses("d")], ["b", "c"])
    now = {replica.address.replica_id: replica for replica in replicas}
    assert now["a"] is kept["a"]
    assert [kept[name].is_gone for name in "abc"] == [False, True, True]
    assert {name: replica.is_local for name, replica in now.items()} == {"a": True, "b": False, "d": True}
    assert [replica.address.replica_id for replica in (*replicas._near, *replicas._far)] == ["a", "d", "b"]
    with pytest.raises(ValueError, match="'c' is not there"):
        replicas.change([], ["c"])
    with pytest.raises(ValueError, match="'a' is there already"):
        replicas.change(addresses("a"), [])


@pytest.mark.parametrize("drawn", list(product((0.0, 0.3, 0.6, 0.99), repeat=2)))
def test_of_two_random_replicas_the_one_with_fewer_open_calls(drawn: tuple[float, float]) -> None:
    replicas = Replicas("here", cycle(drawn).__next__)
    replicas.update(addresses("a", "b"))
    a, b = replicas
    a.open = 3
    assert replicas.choose(0.0) is b
    b.open = 4
    assert replicas.choose(0.0) is a


def test_every_two_replicas_are_compared() -> None:
    pairs = set()
    for first, second in product(range(10), repeat=2):
        replicas = Replicas("here", cycle((first / 10, second / 10)).__next__)
        replicas.update(addresses(*"abcde"))
        for replica in replicas:
            replica.open = 1
        chosen = replicas.choose(0.0)
        assert chosen is not None
        chosen.open = 2  # the other one of the two is chosen now
        other = replicas.choose(0.0)
        assert other is not None
        pairs.add((chosen.address.replica_id, other.address.replica_id))
    assert pairs == {(a, b) for a in "abcde" for b in "abcde" if a != b}


def test_replicas_of_this_node_come_first_unless_they_are_busy() -> None:
    replicas = Replicas("here")
    replicas.update([*addresses("near"), *addresses("far", node="there")])
    near, far = replicas
    near.open = 7
    assert replicas.choose(0.0) is near
    near.open = 9
    assert replicas.choose(0.0) is far
    far.open = 2
    assert replicas.choose(0.0) is near
    replicas.update(addresses("far", node="there"))
    assert replicas.choose(0.0) is far


def test_a_replica_that_could_not_be_reached_is_left_out_for_a_second() -> None:
    replicas = Replicas("here")
    replicas.update(addresses("a", "b"))
    a, b = replicas
    replicas.mark_failed(a, 10.0)
    assert {replicas.choose(10.5) for _ in range(20)} == {b}
    replicas.mark_failed(b, 10.5)
    assert replicas.choose(10.6) is None
    assert replicas.next_try() == 11.0
    assert replicas.choose(11.1) is a


def test_a_models_calls_stay_with_one_replica_and_spread_while_it_is_hot() -> None:
    replicas = Replicas("here")
    replicas.update(addresses(*"abcdef"))
    owners = {model: replicas.choose(0.0, model) for model in map(str, range(60))}
    assert len(set(owners.values())) == 6
    gone = owners["0"]
    assert gone is not None
    replicas.update([replica.address for replica in replicas if replica is not gone])
    for model, owner in owners.items():
        assert (replicas.choose(0.0, model) is owner) == (owner is not gone)
    hot = replicas.choose(0.0, "m")
    assert hot is not None
    hot.open = 5
    assert replicas.choose(0.0, "m") not in (hot, None)


def test_unchanged_replicas_keep_their_connections() -> None:
    replicas = Replicas("here")
    replicas.update(addresses("a", "b"))
    a, b = replicas
    replicas.update(addresses("b", "c"))
    assert [replica.address.replica_id for replica in replicas] == ["b", "c"]
    assert next(iter(replicas)) is b
    assert a.is_gone
    assert not b.is_gone


async def test_calls_are_spread_over_the_replicas() -> None:
    async with deployment(Named("a"), Named("b")) as served:
        handle = AsyncProbeHandle(served.handle)
        replies = await asyncio.gather(*(handle.Unary(Ask()) for _ in range(200)))
    counts = Counter(reply.text for reply in replies)
    assert min(counts["a"], counts["b"]) > 80


async def test_connections_are_reused_and_idle_ones_close() -> None:
    async with deployment(Named()) as served:
        handle = AsyncProbeHandle(served.handle)
        for _ in range(20):
            await handle.Unary(Ask())
        (server,) = served.replicas
        assert server.connections == 1
        await asyncio.gather(*(handle.Unary(Ask()) for _ in range(20)))
        assert server.connections <= 20
        target = handle._target
        assert target is not None
        target.replicas.close_idle(float("inf"))
        await until(lambda: not server.connections)
        assert (await handle.Unary(Ask())).text == ""


async def test_limits_of_the_called_deployment() -> None:
    named = Named()
    async with deployment(named, max_ongoing_requests=2, max_queued_requests=3) as served:
        handle = AsyncProbeHandle(served.handle)
        calls = [asyncio.ensure_future(handle.Unary(Ask(act="wait"))) for _ in range(8)]
        await until(lambda: sum(call.done() for call in calls) == 3)
        named.release.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert named.most == 2
    errors = [result for result in results if isinstance(result, RpcError)]
    assert [error.code.name for error in errors] == ["RESOURCE_EXHAUSTED"] * 3
    assert "max_queued_requests=3" in errors[0].details


async def test_no_call_fails_while_replicas_are_replaced_a_hundred_times() -> None:
    done = Counter[str]()
    async with deployment(Named()) as served:
        handle = AsyncProbeHandle(served.handle)
        is_over = False

        async def call_all_the_time(kind: str) -> None:
            while not is_over:
                match kind:
                    case "unary":
                        await handle.Unary(Ask())
                    case "down":
                        assert len([None async for _ in handle.Down(Ask(number=20))]) == 20
                    case _:
                        assert (await handle.Up(Ask() for _ in range(20))).number == 20
                done[kind] += 1

        callers = [asyncio.ensure_future(call_all_the_time(kind)) for kind in ("unary", "down", "up") * 3]
        draining = []
        for _ in range(100):
            old = served.replicas[0]
            await served.add(Named())
            served.remove(old)
            draining.append(asyncio.ensure_future(old.drain(quiet_s=0, grace_s=10, linger_s=1)))
            await asyncio.sleep(0.002)
        is_over = True
        await asyncio.gather(*callers, *draining)
    assert min(done.values()) > 20


def retries(served: Deployment) -> dict[str, int]:
    """Return the number of calls that were sent again, by reason."""
    named = served.handle.deployment_name
    return {reason: number for (_, name, reason), number in count_retries().items() if name == named}


async def test_a_replica_that_refuses_at_the_last_moment_loses_nothing() -> None:
    """The callers still know the replica when it closes."""
    async with deployment(Named("old"), Named("new")) as served:
        handle = AsyncProbeHandle(served.handle)
        await asyncio.gather(*(handle.Unary(Ask()) for _ in range(40)))
        calls = [asyncio.ensure_future(handle.Unary(Ask())) for _ in range(40)]
        calls += [asyncio.ensure_future(handle.Up([Ask()])) for _ in range(10)]  # type: ignore[list-item]
        await asyncio.sleep(0)
        await served.replicas[0].drain(quiet_s=0, grace_s=5, linger_s=1)
        assert len(await asyncio.gather(*calls)) == 50
        assert {(await handle.Unary(Ask())).text for _ in range(20)} == {"new"}


async def test_calls_on_connections_that_close_are_sent_again_and_counted() -> None:
    async with deployment(Named()) as served:
        handle = AsyncProbeHandle(served.handle)
        await asyncio.gather(*(handle.Unary(Ask()) for _ in range(3)))
        assert retries(served) == {}
        for connection in list(served.replicas[0]._connections):
            connection.close_when_idle()  # the caller has not read that yet
        await asyncio.gather(*(handle.Unary(Ask()) for _ in range(3)))
        assert retries(served) == {"refused": 3}


async def kill(server: Any) -> None:
    """Close every socket, as the kernel does for a killed process."""
    late_accepts, server._late_accepts = server._late_accepts, None
    await late_accepts.stop()
    for listener in server._listeners:
        listener.close()
    for connection in list(server._connections):
        connection.abort()


async def test_calls_of_a_killed_replica_are_unavailable_and_new_ones_go_elsewhere() -> None:
    async with deployment(Named("dead")) as served:
        handle = AsyncProbeHandle(served.handle)
        calls = [asyncio.ensure_future(handle.Unary(Ask(act="wait"))) for _ in range(5)]
        (dead,) = served.replicas
        await until(lambda: dead.count_calls() == 5)
        await served.add(Named("alive"))
        await kill(dead)
        for call in calls:
            with pytest.raises(RpcError, match="UNAVAILABLE: The replica died before its answer was complete"):
                await call
        replies = await asyncio.gather(*(handle.Unary(Ask(), timeout=5) for _ in range(20)))
        assert {reply.text for reply in replies} == {"alive"}
        served.replicas.remove(dead)


async def test_an_idempotent_call_is_repeated_once() -> None:
    async with deployment(Named("dead")) as served:
        handle = AsyncProbeHandle(served.handle)
        handle.Unary._is_idempotent = True
        call = asyncio.ensure_future(handle.Unary(Ask(act="wait")))
        (dead,) = served.replicas
        await until(lambda: dead.count_calls() == 1)
        second = await served.add(Named("second"))
        await kill(dead)
        await until(lambda: second.count_calls() == 1)
        await kill(second)
        with pytest.raises(RpcError, match="UNAVAILABLE"):
            await call
        served.replicas.clear()
        assert retries(served) == {"lost": 1}


def lose_what_comes_on(connections: set[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Abort these connections of a replica when the next bytes arrive there."""
    kind = type(next(iter(connections)))
    usual = kind.data_received

    def receive(connection: Any, data: bytes) -> None:
        if connection in connections:
            connection.abort()
        else:
            usual(connection, data)

    monkeypatch.setattr(kind, "data_received", receive)


async def test_a_call_is_not_repeated_on_another_connection_of_a_process_that_dies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel closes its connections one after the other; what is sent on the last of them is lost, too."""
    async with deployment(Named("again")) as served:
        handle = AsyncProbeHandle(served.handle)
        handle.Unary._is_idempotent = True
        await asyncio.gather(*(handle.Unary(Ask()) for _ in range(3)))
        (server,) = served.replicas
        dying = set(server._connections)
        lose_what_comes_on(dying, monkeypatch)
        assert (await handle.Unary(Ask())).text == "again"
        await until(lambda: not dying & server._connections)
        assert retries(served) == {"lost": 1}


async def test_no_call_begins_on_a_connection_with_the_crash_trailers_of_a_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process sends them, and closes the connection a moment later."""
    async with deployment(Named("next")) as served:
        handle = AsyncProbeHandle(served.handle)
        stream = handle.Down(Ask(act="wait", number=1))
        await anext(stream)
        (connection,) = served.replicas[0]._connections
        lose_what_comes_on({connection}, monkeypatch)
        connection._transport.write(encode_trailers(b"1"))
        with pytest.raises(RpcError, match=REPLICA_DIED):
            await anext(stream)
        assert (await handle.Unary(Ask())).text == "next"
        assert retries(served) == {}


async def test_calls_wait_for_the_first_replica_until_their_deadline() -> None:
    async with deployment() as served:
        handle = AsyncProbeHandle(served.handle)
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await handle.Unary(Ask(), timeout=0.05)
        calls = [asyncio.ensure_future(handle.Unary(Ask(), timeout=30)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await served.add(Named("first"))
        assert {(await call).text for call in calls} == {"first"}


async def test_a_deployment_that_can_not_start_or_was_deleted_is_unavailable() -> None:
    async with deployment() as served:
        handle = AsyncProbeHandle(served.handle)
        for change, said in (
            ({"failure": "OSError: no file"}, r"deployment 'D\d+' of application 'app' can't start: OSError: no file"),
            ({"is_known": False, "failure": ""}, r"deployment 'D\d+' of application 'app' was deleted"),
        ):
            call = asyncio.ensure_future(handle.Unary(Ask(), timeout=30))
            await asyncio.sleep(0.02)
            served.state = served.state._replace(**change)
            served.publish()
            with pytest.raises(RpcError, match=f"UNAVAILABLE: {said}"):
                await call


async def test_more_calls_than_may_wait_for_the_first_replica_are_refused() -> None:
    async with deployment() as served:
        served.state = served.state._replace(max_waiting=2)
        handle = AsyncProbeHandle(served.handle)
        calls = [asyncio.ensure_future(handle.Unary(Ask(), timeout=30)) for _ in range(3)]
        with pytest.raises(RpcError, match=r"RESOURCE_EXHAUSTED: .* 2 requests already wait for the first replica"):
            await calls[2]
        await served.add(Named())
        await asyncio.gather(*calls[:2])


async def test_a_replica_of_another_node_is_called_over_tcp() -> None:
    async with deployment(Named("far")) as served:
        (server,) = served.replicas
        port = await server.listen("127.0.0.1")
        server.address = Address("r", "127.0.0.1", port, "another node", "its socket")  # type: ignore[attr-defined]
        served.publish()
        handle = AsyncProbeHandle(served.handle)
        assert (await handle.Unary(Ask())).text == "far"
        assert (await handle.Up(Ask() for _ in range(100))).number == 100
        assert len([None async for _ in handle.Down(Ask(number=100))]) == 100
        call = asyncio.ensure_future(handle.Unary(Ask(act="wait")))
        await until(lambda: server.count_calls() == 1)
        call.cancel()
        await until(lambda: server.count_calls() == 0)

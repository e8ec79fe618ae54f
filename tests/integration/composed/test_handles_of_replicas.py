"""Calls between deployments through generated handles."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status
from probe_pb2 import Ask
from probe_pb2_grpc import AsyncProbeStub
from probe_sdk import AsyncProbeHandle
from ray import serve
from user_defined_protos_pb2 import UserDefinedMessage as Message
from user_defined_protos_pb2_grpc import UserDefinedServiceStub
from user_defined_protos_sdk import UserDefinedServiceHandle

import sdk
from sdk._channel.feed import decode_change, encode_interest, socket_name
from sdk._channel.replicas import connect_locally
from sdk._ingress.cluster import find_controller
from sdk._ingress.registry import Replica
from sdk._xds.snapshot import Endpoint
from sdk.errors import ClusterError, RpcError
from tests.integration.clients import error_of, trailing
from tests.integration.typed_handle_calls import OUTCOMES, outcomes
from tests.support.deadlines import growing_deadlines, wait_until
from tests.support.processes import raylet_pid, workers

OUTER = (("application", "typed"), ("request_id", "r1"))


@pytest.fixture
def stub(channel: grpc.Channel) -> UserDefinedServiceStub:
    return UserDefinedServiceStub(channel)


def test_a_unary_call_forwards_the_clients_metadata(stub: UserDefinedServiceStub) -> None:
    metadata = (*OUTER, ("multiplexed_model_id", "m1"), ("user", "me"))
    for origin in ("", "plain"):  # also through a plain deployment, whose sync handler waits in a thread
        reply = json.loads(stub.__call__(Message(name="seen", origin=origin), metadata=metadata, timeout=30).greeting)
        assert 20 < reply.pop("left") < 31
        assert reply == {"request_id": "r1", "model": "m1", "serve": ["m1", "r1"], "user": "me", "peer": "ipv4"}


def test_a_call_may_set_model_metadata_and_timeout(stub: UserDefinedServiceStub) -> None:
    metadata = (*OUTER, ("multiplexed_model_id", "m1"))
    reply = json.loads(stub.__call__(Message(name="seen", origin="given"), metadata=metadata).greeting)
    assert (reply["model"], reply["serve"][0], reply["user"], reply["left"]) == ("m2", "m2", "you", None)
    timed = Message(name="seen", origin="timed", num=20_000)
    assert 0 < json.loads(stub.__call__(timed, metadata=OUTER).greeting)["left"] < 20.001


def test_a_stream(stub: UserDefinedServiceStub) -> None:
    replies = list(stub.Streaming(Message(num=50), metadata=OUTER))
    assert [reply.num for reply in replies] == list(range(50))
    assert {reply.greeting for reply in replies} == {"r1"}


def test_streams_of_requests(stub: UserDefinedServiceStub) -> None:
    replies = list(stub.Streaming(Message(num=20, origin="both"), metadata=OUTER))
    assert [reply.num for reply in replies] == [*range(0, 40, 2), 40]
    assert {reply.greeting for reply in replies[:-1]} == {"r1"}


def test_what_calls_end_with(channel: grpc.Channel) -> None:
    assert outcomes(channel) == OUTCOMES  # those that Ray's handles carry, too: test_ways_in.py


def test_calls_go_over_the_wire_and_those_to_a_plain_deployment_over_ray(stub: UserDefinedServiceStub) -> None:
    reply = stub.__call__(Message(name="transport"), metadata=OUTER).greeting
    assert reply not in ("", "_Responses")
    plain = AsyncProbeHandle(serve.get_deployment_handle("Plain", "typed"))
    with pytest.raises(RpcError, match="UNIMPLEMENTED: deployment 'Plain' of application 'typed' can't be called with"):
        plain.Up([Ask()]).result()


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        ("stop", grpc.StatusCode.INTERNAL, "coroutine raised StopIteration"),
        ("group", grpc.StatusCode.INTERNAL, "ValueError: a"),
        ("cancelled", grpc.StatusCode.CANCELLED, "the handler was cancelled"),
    ],
)
def test_what_a_handler_raises(stub: UserDefinedServiceStub, act: str, code: grpc.StatusCode, said: str) -> None:
    error = error_of(stub.__call__, Message(name=act), metadata=OUTER)
    assert error.code() is code
    assert said in error.details()


def test_the_other_calls_of_a_handler_end_with_its_own(stub: UserDefinedServiceStub, notes: Path) -> None:
    error = error_of(stub.__call__, Message(name="wait siblings", origin="several"), metadata=OUTER)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    if (notes / "wait siblings began").exists():  # the failure may come first
        wait_until((notes / "wait siblings ended").exists)


def test_a_status_of_the_inner_call_is_that_of_the_outer_one(stub: UserDefinedServiceStub) -> None:
    error: Any = error_of(stub.__call__, Message(name="fail"), metadata=OUTER)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such")
    assert (trailing(error)["k"], trailing(error)["request_id"]) == ("v", "r1")
    status = rpc_status.from_call(error)
    found = BadRequest()
    assert status.details[0].Unpack(found)
    assert found.field_violations[0].field == "note"
    stream = stub.Streaming(Message(name="fail", num=2), metadata=OUTER)
    assert [next(stream).num for _ in range(2)] == [0, 1]
    assert error_of(next, stream).code() is grpc.StatusCode.DATA_LOSS


def test_a_status_can_be_caught(stub: UserDefinedServiceStub) -> None:
    assert stub.__call__(Message(name="fail", origin="caught"), metadata=OUTER).greeting == "NOT_FOUND no such note"


def test_other_errors_are_internal_with_the_inner_traceback(stub: UserDefinedServiceStub) -> None:
    error: Any = error_of(stub.__call__, Message(name="raise"), metadata=OUTER)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "ValueError: a value" in error.details()
    assert "typed_handle_apps.py" in error.details()


def test_a_deadline_ends_the_inner_call(stub: UserDefinedServiceStub, notes: Path) -> None:
    for seconds in growing_deadlines():
        short = Message(name="wait short", origin="timed", num=round(seconds * 1000))
        error = error_of(stub.__call__, short, metadata=OUTER, timeout=30)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if (notes / "wait short began").exists():
            break
    wait_until((notes / "wait short ended").exists)
    for seconds in growing_deadlines():
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            stub.__call__(Message(name="wait outer"), metadata=OUTER, timeout=seconds)
        if (notes / "wait outer began").exists():
            break
    wait_until((notes / "wait outer ended").exists)


def test_a_client_that_cancels_ends_the_inner_calls(stub: UserDefinedServiceStub, notes: Path) -> None:
    call = stub.__call__.future(Message(name="wait unary"), metadata=OUTER)
    wait_until((notes / "wait unary began").exists)
    call.cancel()
    wait_until((notes / "wait unary ended").exists)
    stream = stub.Streaming(Message(name="wait stream", num=1), metadata=OUTER)
    next(stream)
    wait_until((notes / "wait stream began").exists)
    stream.cancel()
    wait_until((notes / "wait stream ended").exists)


def test_a_stream_that_the_outer_handler_abandons_is_cancelled(stub: UserDefinedServiceStub, notes: Path) -> None:
    stub.__call__(Message(name="wait first", num=3, origin="first"), metadata=OUTER)
    wait_until((notes / "wait first ended").exists)


def test_a_driver_calls_through_a_handle() -> None:
    handle = AsyncProbeHandle(serve.get_deployment_handle("Inner", "typed"))
    reply = json.loads(handle.Unary(Ask(act="seen")).result().text)
    assert reply["request_id"] == reply["serve"][1] != ""
    assert [reply.number for reply in handle.Down(Ask(number=3))] == [0, 1, 2]
    with pytest.raises(RpcError, match="NOT_FOUND: no such"):
        handle.Unary(Ask(act="fail")).result()
    with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
        handle.Unary(Ask(act="wait", note="wait program"), timeout=0.3).result()

    assert handle.Up(Ask(number=number) for number in range(4)).result().number == 6
    assert [reply.number for reply in handle.Both([Ask(number=1), Ask(number=2)])] == [2, 4]

    async def call() -> str:
        return (await handle.Unary(Ask(note="async"), timeout=10)).text

    assert asyncio.run(call()) == "async"
    assert asyncio.run(call()) == "async"  # on another loop


def test_a_handle_to_an_application_and_one_in_a_ray_task() -> None:
    outer = UserDefinedServiceHandle.of_application("typed")
    assert outer(Message(name="transport")).result().greeting

    @ray.remote
    def in_task() -> str:
        return str(UserDefinedServiceHandle.of_application("typed")(Message(name="transport")).result().greeting)

    assert ray.get(in_task.remote()) not in ("", "_Responses")
    with pytest.raises(ClusterError, match="nothing"):
        UserDefinedServiceHandle.of_application("nothing")


def test_ray_actors_call_through_a_handle() -> None:
    handle = AsyncProbeHandle(serve.get_deployment_handle("Inner", "typed"))

    @ray.remote(num_cpus=0)
    class OfThreads:
        def __init__(self, handle: AsyncProbeHandle) -> None:
            self.handle = handle

        def call(self) -> tuple[str, list[int], int]:
            kind = self.handle.Unary(Ask(act="transport")).result().text
            down = [reply.number for reply in self.handle.Down(Ask(number=3))]
            return kind, down, self.handle.Up([Ask(number=1), Ask(number=2)]).result().number

    @ray.remote(num_cpus=0)
    class OfCoroutines:
        def __init__(self, handle: AsyncProbeHandle) -> None:
            self.handle = handle

        async def call(self) -> tuple[str, list[int], int]:
            kind = (await self.handle.Unary(Ask(act="transport"))).text
            down = [reply.number async for reply in self.handle.Down(Ask(number=3))]
            return kind, down, (await self.handle.Up([Ask(number=1), Ask(number=2)])).number

    for actor in OfThreads.remote(handle), OfCoroutines.remote(handle):
        # The second call finds the connections of the first.
        for kind, down, up in ray.get([actor.call.remote(), actor.call.remote()]):
            assert kind not in ("", "_Responses"), "Ray's handle has carried it"
            assert (down, up) == ([0, 1, 2], 3)
        ray.kill(actor)


async def test_callers_learn_of_each_change_from_their_nodes_proxy() -> None:
    node_id = sdk.status().proxies[0].node_id
    options = (await find_controller().status.remote()).options
    key = ("typed elsewhere", "Absent")
    # The second one stays: the controller forgets a deployment without replicas that Ray Serve does not have.
    first, second = (
        Replica(*key, ("t.Absent",), Endpoint(f"absent#{number}", "127.0.0.1", number, node_id), is_exposed=False)
        for number in (1, 2)
    )
    reader, writer = await asyncio.open_unix_connection(sock=connect_locally(socket_name(node_id)))

    async def next_change() -> tuple[list[str], tuple[str, ...]]:
        change = decode_change(await asyncio.wait_for(reader.readline(), 30))
        return [address.replica_id for address in change.state.addresses], change.removed

    with contextlib.closing(writer):
        writer.write(encode_interest(key, 0))
        assert await next_change() == ([], ())
        for replica in (first, second):
            registered = find_controller().register.remote(replica, b"", 30.0, options)
            assert await next_change() == ([replica.endpoint.replica_id], ())  # 4 ms later on a busy machine
            assert await registered
        deregistered = find_controller().deregister.remote("absent#1", 30.0)
        assert await next_change() == ([], ("absent#1",))
        assert await deregistered
    assert await find_controller().deregister.remote("absent#2", 30.0)


def test_the_handlers_are_cancelled_when_a_ray_task_that_calls_them_is_killed(notes: Path) -> None:
    kinds = {kind: f"wait of a killed caller, {kind}" for kind in ("unary", "stream", "conversation")}

    @ray.remote(num_cpus=0, max_retries=0)
    def caller() -> None:
        (notes / "pid of the caller").write_text(str(os.getpid()))
        handle = AsyncProbeHandle(serve.get_deployment_handle("Inner", "typed"))
        asks = {kind: Ask(act="wait", note=note, number=1) for kind, note in kinds.items()}
        streams = handle.Down(asks["stream"]), handle.Both([asks["conversation"]])
        handle.Unary(asks["unary"]).result()
        assert streams, "they run meanwhile"

    task = caller.remote()
    for note in kinds.values():
        wait_until((notes / f"{note} began").exists)
    os.kill(int((notes / "pid of the caller").read_text()), signal.SIGKILL)
    for note in kinds.values():
        wait_until((notes / f"{note} ended").exists)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(task)


def test_clients_do_not_reach_a_deployment_that_is_not_exposed(channel: grpc.Channel) -> None:
    error = error_of(AsyncProbeStub(channel).Unary, Ask(), metadata=OUTER)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_calls_in_flight_of_a_dead_replica_are_unavailable_and_later_ones_wait_for_the_next(
    stub: UserDefinedServiceStub,
) -> None:
    error = error_of(stub.__call__, Message(name="die"), metadata=OUTER, timeout=60)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert stub.__call__(Message(name="transport"), metadata=OUTER, timeout=60).greeting


def test_the_calls_of_a_killed_caller_are_cancelled(stub: UserDefinedServiceStub, notes: Path) -> None:
    call = stub.__call__.future(Message(name="wait orphan"), metadata=OUTER)
    stream = stub.Streaming(Message(name="wait orphaned stream", num=1), metadata=OUTER)
    next(stream)
    for note in "wait orphan", "wait orphaned stream":
        wait_until((notes / f"{note} began").exists)
    (caller,) = workers(raylet_pid(sdk.status().proxies[0].node_id), "ray::ServeReplica:typed:Outer")
    os.kill(caller, signal.SIGKILL)
    for note in "wait orphan", "wait orphaned stream":
        wait_until((notes / f"{note} ended").exists)
    assert call.exception().code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.RpcError):
        next(stream)

    def is_served() -> bool:
        answer = stub.__call__.future(Message(name="transport"), metadata=OUTER, timeout=60)
        return answer.exception() is None

    wait_until(is_served)  # calls fail until the proxy knows that the replica is dead, and then wait for the next one

"""Several deployments in one process: handles, and Ray Serve's features for requests."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import ray
from harness_pb2 import Number, Text
from harness_pb2_grpc import GreeterStub
from harness_sdk import GreeterClient, GreeterHandle, GreeterSyncClient
from ray import serve
from ray.serve.exceptions import RayServeException, RequestCancelledError

import sdk.testing
from sdk import handle
from tests.support.deadlines import wait_until
from tests.support.loops import PATIENCE_S
from tests.testing.harness_apps import Composed, Greeter, Models, Plain, Relay, ThreadComposed, Worker, function

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    worker = handle(Worker.bind())
    with sdk.testing.serve(Composed.bind(worker, handle(Relay.bind(worker)))) as server:
        yield server


@pytest.fixture
def client(server: sdk.testing.Server) -> GreeterSyncClient:
    return server.client(GreeterSyncClient, timeout=20)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("shout", "LOUD"),
        ("call", "called it"),
        ("chained", "CALLED IT"),
        ("facts", "m7 default Worker"),
        ("request_id", "r1"),
        ("in_thread", "serve-handle"),
        ("stream", "[0, 1, 2, 3, 0, 1, 2]"),
        ("fail_value", "caught the worker failed"),
        ("fill", "1 0"),
        ("cancel", "RequestCancelledError"),
        ("overload", "BackPressureError,BackPressureError," + ",".join(["RequestCancelledError"] * 3)),
        ("pickled", "BACK"),
        ("looked_up", "FOUND"),
    ],
)
def test_handles_behave_as_on_a_cluster(client: GreeterSyncClient, asked: str, answer: str) -> None:
    assert client.SayHello(Text(text=asked), request_id="r1").text == answer


def test_blocking_on_a_handle_on_the_event_loop_is_an_error(client: GreeterSyncClient) -> None:
    assert client.SayHello(Text(text="blocks")).text.startswith("Sync methods should not be called from within an")


@pytest.mark.parametrize(
    ("asked", "code", "details"),
    [
        ("fail_rpc", grpc.StatusCode.NOT_FOUND, "no such thing"),
        ("unknown", grpc.StatusCode.INTERNAL, "Tried to call a method 'nothing' that does not exist"),
        ("stream_of_one", grpc.StatusCode.INTERNAL, "Called method 'shout' with `handle.options(stream=True)` but"),
        ("one_of_stream", grpc.StatusCode.INTERNAL, "Method 'numbers' returned a generator. You must use"),
    ],
)
def test_errors_of_handles(client: GreeterSyncClient, asked: str, code: grpc.StatusCode, details: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.SayHello(Text(text=asked))
    assert caught.value.code() is code
    assert details in caught.value.details()


@pytest.mark.parametrize("asked", ["wait", "relayed"])
def test_the_end_of_a_call_cancels_its_calls_through_handles(
    server: sdk.testing.Server, client: GreeterSyncClient, asked: str
) -> None:
    worker: Any = server.instance(Worker.func_or_class)
    for timeout in (0.3, 3, 20):
        worker.events.clear()
        with pytest.raises(grpc.RpcError) as caught:
            client.SayHello(Text(text=asked), timeout=timeout)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if worker.events:
            break  # else the deadline passed before the call reached the worker: this machine needs longer
    ends = time.monotonic() + 30
    while worker.events != ["waits", "cancelled"]:
        assert time.monotonic() < ends, worker.events
        time.sleep(0.02)


def test_a_handle_in_the_test(server: sdk.testing.Server) -> None:
    handle = server.handle()
    assert handle.SayHello.remote(Text(text="shout")).result(timeout_s=10).text == "LOUD"
    assert [one.number for one in handle.options(stream=True).Count.remote(_number(2))] == [0, 1]
    response = handle.SayHello.remote(Text(text="wait"))
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.1)
    response.cancel()
    with pytest.raises(RequestCancelledError):
        response.result(timeout_s=10)

    async def main() -> None:
        assert (await handle.SayHello.remote(Text(text="call"))).text == "called it"
        assert [one.number async for one in handle.options(stream=True).Count.remote(_number(2))] == [0, 1]

    asyncio.run(main())
    with pytest.raises(LookupError, match="no application 'other': there are 'default'"):
        server.handle("other")


def test_a_sync_handler_waits_for_handles_in_its_thread(serving: Callable[..., Any]) -> None:
    client = serving(ThreadComposed.bind(handle(Worker.bind()))).client(GreeterSyncClient)
    assert client.SayHello(Text(text="x")).text == "X [0, 1, 2]"


def test_an_application_without_grpc_is_reached_by_its_handle(serving: Callable[..., Any]) -> None:
    server = serving(Greeter.bind(), plain=function.bind(), worker=Worker.bind())
    assert server.handle("plain").remote("text").result(timeout_s=10) == "a function got text"
    assert server.handle("worker").remote("it").result(timeout_s=10) == "called it"


def test_a_deployment_that_two_others_share_runs_once(serving: Callable[..., Any]) -> None:
    worker = handle(Worker.bind())
    server = serving(Composed.bind(worker, handle(Relay.bind(worker))))
    assert server.instance(Worker.func_or_class)  # one, else it would raise


def test_batches() -> None:
    async def main() -> None:
        async with sdk.testing.serve(Models.bind()) as server, server.client(GreeterClient) as client:
            calls = [client.SayHello(Text(text=str(number))) for number in range(4)]
            assert [(await call).text for call in calls] == ["0", "2", "4", "6"]
            assert server.instance(Models).batches == [4]

    asyncio.run(main())
    asyncio.run(main())  # a second time: nothing may belong to the first server's loop


async def test_replicas_of_one_class_have_separate_batches() -> None:
    async with sdk.testing.serve(a=Models.bind(), b=Models.bind()) as server:
        async with server.client(GreeterClient, application="a") as client:
            calls = [client.SayHello(Text(text="1"), application="ab"[number % 2]) for number in range(8)]
            await asyncio.gather(*calls)
        assert [server.instance(Models, application=name).batches for name in ("a", "b")] == [[4], [4]]


async def test_the_batch_size_can_be_set() -> None:
    async with sdk.testing.serve(Models.bind()) as server, server.client(GreeterClient) as client:
        models = server.instance(Models)
        models.double.set_max_batch_size(2)
        await asyncio.gather(*(client.SayHello(Text(text="1")) for _ in range(4)))
        models.double.set_max_batch_size(4)
        await asyncio.gather(*(client.SayHello(Text(text="1")) for _ in range(4)))
        assert models.batches == [2, 2, 4]


def test_garbage_collection_of_a_batch_queue_creates_no_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with sdk.testing.serve(Models.bind()) as server, server.client(GreeterClient) as client:
            await asyncio.gather(*(client.SayHello(Text(text="1")) for _ in range(4)))

    asyncio.run(main())  # from now on this thread has no event loop
    made: list[str] = []
    monkeypatch.setattr("ray.serve.batching.get_or_create_event_loop", lambda: made.append("a loop"))
    gc.collect()
    assert not made


def test_multiplexed_models(serving: Callable[..., Any]) -> None:
    was_connected = ray.is_initialized()
    with sdk.testing.serve(Models.bind()) as server:
        models = server.instance(Models)
        client = server.client(GreeterSyncClient)
        assert [client.Tell(Text(), model_id=name).text for name in ("a", "b", "a", "c")] == ["a", "b", "a", "c"]
        assert set(models.unloaded) == {"b"}
    assert set(models.unloaded) == {"a", "b", "c"}
    assert ray.is_initialized() is was_connected


def test_each_deployment_has_its_own_replica_context(serving: Callable[..., Any]) -> None:
    server = serving(a=Greeter.options(name="One").bind(), b=Greeter.options(name="Two").bind())
    clients = {name: server.client(GreeterSyncClient, application=name) for name in ("a", "b")}
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda i: clients["ab"[i % 2]].Tell(Text(), request_id="r").text, range(20)))
    assert answers == ["r  a One", "r  b Two"] * 10
    with pytest.raises(RayServeException):
        serve.get_replica_context()


def test_limits_of_the_deployment_hold(serving: Callable[..., Any]) -> None:
    server = serving(
        Composed.options(max_ongoing_requests=1, max_queued_requests=1).bind(handle(Worker.bind())),
    )
    stub = GreeterStub(server.channel())
    calls = [stub.SayHello.future(Text(text="wait")) for _ in range(3)]
    wait_until(lambda: any(call.done() for call in calls))
    (refused,) = (call for call in calls if call.done())
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    waiting = [call for call in calls if call is not refused]
    for call in waiting:
        call.cancel()
    assert [call.code() for call in waiting] == [grpc.StatusCode.CANCELLED] * 2


@sdk.grpc_deployment
class AsksAlone(Plain):
    """Calls a deployment that Ray Serve's own decorator made, one call at a time."""

    def __init__(self, alone: GreeterHandle) -> None:
        self.alone = alone

    async def SayHello(self, request: Text) -> Text:
        return await self.alone.SayHello(request)

    async def Count(self, request: Number) -> AsyncIterator[Number]:
        async for number in self.alone.Count(request):
            yield number


class Alone(Plain):
    async def SayHello(self, request: Text) -> Text:
        if request.text == "cancelled":
            raise asyncio.CancelledError
        if request.text:
            raise ValueError(request.text)
        return Text(text="here")


def test_calls_that_rays_handle_carries_leave_their_replica() -> None:
    alone = serve.deployment(Alone, max_ongoing_requests=1).bind()
    with sdk.testing.serve(AsksAlone.bind(GreeterHandle(alone))) as server:
        client = server.client(GreeterSyncClient, timeout=PATIENCE_S)
        for _ in range(2):
            assert client.SayHello(Text()).text == "here"
            assert [each.number for each in client.Count(Number(number=3))] == [0, 1, 2]
            for text, code in (("wrong", grpc.StatusCode.INTERNAL), ("cancelled", grpc.StatusCode.CANCELLED)):
                with pytest.raises(grpc.RpcError) as caught:
                    client.SayHello(Text(text=text))
                assert caught.value.code() is code


def _number(value: int) -> Any:
    from harness_pb2 import Number

    return Number(number=value)


@sdk.grpc_deployment
class SharesModels(Plain):
    """Holds one model, which calls share."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    @serve.multiplexed(max_num_models_per_replica=1)
    async def model(self, model_id: str) -> sdk.SharedModel[str]:
        return sdk.SharedModel(model_id, close=self.closed.append)

    async def SayHello(self, request: Text) -> Text:
        async with await self.model(serve.get_multiplexed_model_id()) as model:
            if request.text == "wait":
                self.began.set()
                await self.go_on.wait()
            return Text(text=f"{model}, closed: {self.closed}")

    async def Tell(self, request: Text) -> Text:
        await self.began.wait()
        evicted = await self.SayHello(request)
        self.go_on.set()
        return evicted


async def test_a_shared_model_that_is_evicted_ends_after_the_calls_that_use_it() -> None:
    async with sdk.testing.serve(SharesModels.bind()) as server, server.client(GreeterClient) as client:
        first = client.SayHello(Text(text="wait"), model_id="a")
        second = client.Tell(Text(), model_id="b")
        assert (await second).text == "b, closed: []"
        assert (await first).text == "a, closed: []"
        assert (await client.SayHello(Text(), model_id="b")).text == "b, closed: ['a']"

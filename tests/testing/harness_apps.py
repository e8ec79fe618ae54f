"""Applications for the tests of the test server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from harness_pb2 import Number, Text
from harness_sdk import DoublerBase, GreeterBase
from ray import serve
from ray.serve.handle import DeploymentHandle

from sdk import RpcError, current_context, grpc_deployment

STUCK = threading.Event()


class Plain(GreeterBase):
    """Answers every method in the simplest way."""

    async def SayHello(self, request: Text) -> Text:
        return Text(text=f"hello {request.text}")

    async def Tell(self, request: Text) -> Text:
        return Text()

    async def Count(self, request: Number) -> AsyncIterator[Number]:
        for number in range(request.number):
            yield Number(number=number)

    async def Sum(self, request: AsyncIterator[Number]) -> Number:
        return Number(number=sum([one.number async for one in request]))

    async def Chat(self, request: AsyncIterator[Text]) -> AsyncIterator[Text]:
        async for one in request:
            yield Text(text=one.text.upper())


@grpc_deployment
class Greeter(Plain):
    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting
        self.greeted: list[str] = []

    async def SayHello(self, request: Text) -> Text:
        self.greeted.append(request.text)
        return Text(text=f"{self.greeting} {request.text}")

    async def Tell(self, request: Text) -> Text:
        if request.text == "fail":
            raise ValueError("asked to fail")
        context, replica = current_context(), serve.get_replica_context()
        facts = [context.request_id(), serve.get_multiplexed_model_id(), replica.app_name, replica.deployment]
        return Text(text=" ".join(map(str, facts)))


@grpc_deployment
class SyncGreeter(GreeterBase):
    """Sync handlers, which run in threads."""

    def SayHello(self, request: Text) -> Text:
        return Text(text=f"{threading.current_thread().name.rpartition('_')[0]} {request.text}")

    def Tell(self, request: Text) -> Text:
        return Text(text=serve.get_replica_context().deployment)

    def Count(self, request: Number) -> Iterator[Number]:
        for number in range(request.number):
            yield Number(number=number)

    def Sum(self, request: Iterator[Number]) -> Number:
        return Number(number=sum(one.number for one in request))

    def Chat(self, request: Iterator[Text]) -> Iterator[Text]:
        for one in request:
            yield Text(text=one.text.upper())


@grpc_deployment
class Doubler(DoublerBase):
    async def Double(self, request: Number) -> Number:
        return Number(number=2 * request.number)


@grpc_deployment(user_config={"greeting": "configured"}, max_ongoing_requests=7)
class Hooked(Plain):
    """Records the calls of its hooks."""

    async def __init__(self, seen: list[str]) -> None:  # type: ignore[misc]  # Serve awaits it
        await asyncio.sleep(0)
        self.seen = seen
        seen.append("constructed")

    def reconfigure(self, config: dict[str, str]) -> None:
        self.seen.append(config["greeting"])

    async def check_health(self) -> None:
        self.seen.append("healthy")

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        self.seen.append("deleted")


@grpc_deployment
class Broken(Plain):
    def __init__(self, error: Exception) -> None:
        raise error


@grpc_deployment
class Stuck(Plain):
    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        STUCK.set()
        await asyncio.sleep(3600)


@serve.deployment(max_ongoing_requests=2, max_queued_requests=1)
class Worker:
    """A plain Ray Serve deployment, behind a handle."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, text: str) -> str:
        return f"called {text}"

    async def shout(self, text: str) -> str:
        return text.upper()

    async def facts(self) -> str:
        replica = serve.get_replica_context()
        return f"{serve.get_multiplexed_model_id()} {replica.app_name} {replica.deployment}"

    def in_thread(self, seconds: float) -> str:
        time.sleep(seconds)
        return threading.current_thread().name.rpartition("_")[0]

    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
            await asyncio.sleep(0)

    def numbers_in_thread(self, count: int) -> Iterator[int]:
        yield from range(count)

    async def wait(self) -> None:
        self.events.append("waits")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise

    async def wait_for_nobody(self) -> None:
        await asyncio.sleep(3600)

    async def fail(self, kind: str) -> None:
        if kind == "rpc":
            raise RpcError(grpc.StatusCode.NOT_FOUND, "no such thing", [("k", "v")])
        raise ValueError("the worker failed")

    async def fill(self, numbers: list[int]) -> int:
        numbers.append(1)
        return len(numbers)

    async def call_back(self, handle: DeploymentHandle[Any], text: str) -> str:
        return str(await handle.shout.remote(text))


@serve.deployment
class Relay:
    """Forwards calls through a second handle."""

    def __init__(self, worker: DeploymentHandle[Any]) -> None:
        self.worker = worker

    async def wait(self) -> None:
        await self.worker.wait.remote()


@grpc_deployment
class Composed(Plain):
    """Runs the method that the request names, with a worker's handle."""

    def __init__(self, worker: DeploymentHandle[Any], relay: DeploymentHandle[Any] | None = None) -> None:
        self.worker, self.relay = worker, relay

    async def SayHello(self, request: Text) -> Text:
        return Text(text=str(await getattr(self, request.text)()))

    async def shout(self) -> str:
        return str(await self.worker.shout.remote("loud"))

    async def call(self) -> str:
        return str(await self.worker.remote("it"))

    async def chained(self) -> str:
        return str(await self.worker.shout.remote(self.worker.remote("it")))

    async def facts(self) -> str:
        return str(await self.worker.options(multiplexed_model_id="m7").facts.remote())

    async def request_id(self) -> str:
        response = self.worker.shout.remote("x")
        await response
        return str(response.request_id)

    async def in_thread(self) -> str:
        return str(await self.worker.in_thread.remote(0))

    async def stream(self) -> str:
        streaming = self.worker.options(stream=True)
        found = [number async for number in streaming.numbers.remote(4)]
        return str(found + [number async for number in streaming.numbers_in_thread.remote(3)])

    async def fail_rpc(self) -> None:
        await self.worker.fail.remote("rpc")

    async def fail_value(self) -> str:
        try:
            await self.worker.fail.remote("value")
        except ValueError as error:
            return f"caught {error}"
        return "nothing"

    async def unknown(self) -> None:
        await self.worker.nothing.remote()

    async def stream_of_one(self) -> None:
        async for _ in self.worker.options(stream=True).shout.remote("x"):
            pass

    async def one_of_stream(self) -> None:
        await self.worker.numbers.remote(3)

    async def fill(self) -> str:
        numbers: list[int] = []
        return f"{await self.worker.fill.remote(numbers)} {len(numbers)}"

    async def wait(self) -> None:
        await self.worker.wait.remote()

    async def relayed(self) -> None:
        assert self.relay is not None
        await self.relay.wait.remote()

    async def cancel(self) -> str:
        response = self.worker.wait.remote()
        response.cancel()
        try:
            await response
        except BaseException as error:
            return type(error).__name__
        return "went on"

    async def overload(self) -> str:
        responses = [self.worker.wait_for_nobody.remote() for _ in range(5)]
        tasks = [asyncio.ensure_future(_result(response)) for response in responses]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for response in responses:
            response.cancel()
        return ",".join(sorted(type(error).__name__ for error in await asyncio.gather(*tasks, return_exceptions=True)))

    async def pickled(self) -> str:
        return str(await self.worker.call_back.remote(self.worker, "back"))

    async def looked_up(self) -> str:
        handle = serve.get_deployment_handle("Worker")
        return str(await handle.shout.remote("found"))

    async def blocks(self) -> str:
        try:
            self.worker.shout.remote("x").result()
        except RuntimeError as error:
            return str(error)
        return "nothing"


async def _result(response: Any) -> Any:
    return await response


@grpc_deployment
class ThreadComposed(Plain):
    """A sync handler that waits for handles in its thread."""

    def __init__(self, worker: DeploymentHandle[Any]) -> None:
        self.worker = worker

    def SayHello(self, request: Text) -> Text:  # type: ignore[override]  # sync here, and both are allowed
        loud = self.worker.shout.remote(request.text).result(timeout_s=5)
        numbers = list(self.worker.options(stream=True).numbers.remote(3))
        return Text(text=f"{loud} {numbers}")


@serve.deployment
def function(text: str) -> str:
    return f"a function got {text}"


@grpc_deployment
class Models(Plain):
    """Batches, and loads models."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.unloaded: list[str] = []

    @serve.multiplexed(max_num_models_per_replica=2)
    async def model(self, model_id: str) -> Model:
        return Model(model_id, self.unloaded)

    async def Tell(self, request: Text) -> Text:
        model = await self.model(serve.get_multiplexed_model_id())
        return Text(text=model.name)

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=5)
    async def double(self, numbers: list[int]) -> list[int]:
        self.batches.append(len(numbers))
        return [2 * number for number in numbers]

    async def SayHello(self, request: Text) -> Text:
        return Text(text=str(await self.double(int(request.text))))


class Model:
    def __init__(self, name: str, unloaded: list[str]) -> None:
        self.name, self._unloaded = name, unloaded

    def __del__(self) -> None:
        self._unloaded.append(self.name)

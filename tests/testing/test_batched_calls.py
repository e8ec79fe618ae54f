"""Methods with ``@serve.batch``: none sees the context of another call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from harness_pb2 import Number, Text
from harness_sdk import DoublerBase, DoublerHandle, GreeterClient
from ray import serve

import sdk.testing
from sdk.context import ServicerContext
from tests.testing.harness_apps import Plain

pytestmark = pytest.mark.timeout(60)


def said_by(context: ServicerContext) -> str:
    return dict(context.invocation_metadata()).get("user", "nobody")


@sdk.grpc_deployment
class Batched(Plain):
    """Answers with the user of each call, read in three ways."""

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=5)
    async def SayHello(self, request: list[Text], grpc_context: list[ServicerContext]) -> list[Text]:
        return [Text(text=said_by(context)) for context in grpc_context]

    async def Tell(self, request: Text) -> Text:
        if request.text == "given":
            return Text(text=await self.given(said_by(sdk.current_context())))
        return Text(text=await self.current())

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=5)
    async def given(self, users: list[str]) -> list[str]:
        return users

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=5)
    async def current(self) -> list[str]:
        return await asyncio.to_thread(lambda: [said_by(sdk.current_context())])


async def ask(client: GreeterClient, method: str, text: str = "") -> list[str]:
    """Return the answers of two calls at once, three times: the first creates the task that runs all batches."""
    answers = []
    for number in range(3):
        calls = [
            getattr(client, method)(Text(text=text), metadata=[("user", f"{name}{number}")]) for name in ("ann", "bob")
        ]
        answers += [answer.text for answer in await asyncio.gather(*calls)]
    return answers


USERS = ["ann0", "bob0", "ann1", "bob1", "ann2", "bob2"]


@pytest.fixture
async def client() -> AsyncIterator[GreeterClient]:
    async with sdk.testing.serve(Batched.bind()) as server, server.client(GreeterClient) as client:
        yield client


async def test_a_batched_handler_has_the_context_of_each_call(client: GreeterClient) -> None:
    assert await ask(client, "SayHello") == USERS


async def test_a_handler_may_pass_what_it_needs_to_a_batched_method(client: GreeterClient) -> None:
    assert await ask(client, "Tell", "given") == USERS


async def test_a_batched_method_has_no_current_context(client: GreeterClient) -> None:
    for _ in range(2):
        calls = [client.Tell(Text(), metadata=[("user", name)]) for name in ("ann", "bob")]
        for failed in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(failed, grpc.RpcError)
            assert failed.code() is grpc.StatusCode.INTERNAL
            assert "a method with @serve.batch runs once for several calls" in failed.details()


@sdk.grpc_deployment
class Doubler(DoublerBase):
    async def Double(self, request: Number) -> Number:
        return Number(number=len(said_by(sdk.current_context())))


@sdk.grpc_deployment
class AsksInBatches(Plain):
    def __init__(self, doubler: DoublerHandle) -> None:
        self.doubler = doubler

    async def SayHello(self, request: Text) -> Text:
        return Text(text=str(await self.ask()))

    @serve.batch(max_batch_size=1)
    async def ask(self) -> list[int]:
        return [(await self.doubler.Double(Number())).number]


async def test_a_call_in_a_batch_carries_no_ones_metadata(serving: Callable[..., Any]) -> None:
    server = serving(AsksInBatches.bind(Doubler.bind()))
    async with server.client(GreeterClient, metadata=[("user", "ann")]) as client:
        assert (await client.SayHello(Text())).text == str(len("nobody"))

"""Greeter, errors, multiplexing and batching: the points to notice in their READMEs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import accounts_app
import embedder_app
import greeter_app
import grpc
import pytest
import translator_app
from accounts_pb2 import OpenRequest, WithdrawRequest
from accounts_sdk import AccountsSyncClient
from embedder_pb2 import Text as EmbeddedText
from embedder_sdk import EmbedderSyncClient
from google.rpc.error_details_pb2 import BadRequest, ResourceInfo
from greeter_pb2 import HelloReply, HelloRequest
from greeter_sdk import GreeterClient
from grpc_status import rpc_status
from translator_pb2 import Text
from translator_sdk import TranslatorSyncClient

import sdk.testing
from sdk import RpcError

Serve = Callable[..., Any]


def detail(error: grpc.RpcError, kind: Any) -> Any:
    found = kind()
    assert any(packed.Unpack(found) for packed in rpc_status.from_call(error).details)
    return found


async def test_a_handler_can_be_called_without_any_server() -> None:
    async def names() -> AsyncIterator[HelloRequest]:
        for name in ("Ada", "Alan"):
            yield HelloRequest(name=name)

    async def call() -> HelloReply:
        return await greeter_app.Greeter("?").SayHelloToAll(names())

    assert (await call()).text == "Hello Ada and Alan?"
    with pytest.raises(RpcError, match="INVALID_ARGUMENT: whom"):
        greeter_app.Greeter("?").greet("")


async def test_both_streams_are_open_at_once() -> None:
    async def call(target: str) -> list[Any]:
        async with GreeterClient(target) as client:
            both = client.SayHelloToEach()
            texts = []
            for name in ("Ada", "Alan"):
                await both.write(HelloRequest(name=name))
                texts.append((await both.read()).text)
            await both.done_writing()
            return [*texts, await both.code()]

    with sdk.testing.serve(greeter_app.app) as server:
        assert await call(server.target) == ["Hello Ada!", "Hello Alan!", grpc.StatusCode.OK]


def test_every_wrong_field_is_named(client: Serve) -> None:
    accounts = client(accounts_app.app, AccountsSyncClient)
    with pytest.raises(grpc.RpcError) as raised:
        accounts.Open(OpenRequest(deposit=-1))
    assert [wrong.field for wrong in detail(raised.value, BadRequest).field_violations] == ["owner", "deposit"]
    accounts.Open(OpenRequest(owner="ada"))
    with pytest.raises(grpc.RpcError) as raised:
        accounts.Open(OpenRequest(owner="ada"))
    assert detail(raised.value, ResourceInfo).resource_name == "ada"


def test_what_is_refused_changes_nothing(client: Serve) -> None:
    accounts = client(accounts_app.app, AccountsSyncClient)
    accounts.Open(OpenRequest(owner="ada", deposit=5))
    with pytest.raises(grpc.RpcError, match="not enough money"):
        accounts.Withdraw(WithdrawRequest(owner="ada", amount=6))
    assert accounts.Withdraw(WithdrawRequest(owner="ada", amount=5)).balance == 0


def test_a_replica_drops_the_model_that_was_not_used_longest(client: Serve) -> None:
    translator = client(translator_app.app, TranslatorSyncClient)
    loads = [translator.Translate(Text(text="hello"), model_id=model).loads for model in ("de", "fr", "de", "sv", "fr")]
    assert loads == [1, 2, 2, 3, 4]


def test_calls_that_come_together_are_one_batch(client: Serve) -> None:
    embedder = client(embedder_app.app, EmbedderSyncClient)
    with ThreadPoolExecutor(32) as threads:
        replies = list(threads.map(lambda n: embedder.Embed(EmbeddedText(text=f"text {n}")), range(32)))
    assert max(reply.batch_size for reply in replies) > 4
    for number, reply in enumerate(replies):  # each call gets the answer to its text
        assert list(reply.values) == pytest.approx(embedder_app.embed(f"text {number}"))

"""Messages whose fields have the names of methods: protobuf reads the field, so that only the class has the method."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fields_pb2 import Fields
from fields_sdk import EchoBase, EchoClient, EchoHandle, EchoSyncClient

import sdk.testing
from sdk import grpc_deployment

pytestmark = pytest.mark.timeout(60)

VALUES: dict[str, Any] = {
    "SerializeToString": "a",
    "ByteSize": 3,
    "DESCRIPTOR": ["b"],
    "FromString": "c",
    "ListFields": "d",
    "HasField": "e",
}


@grpc_deployment
class Echo(EchoBase):
    async def Get(self, request: Fields) -> Fields:
        return request

    async def Each(self, requests: AsyncIterator[Fields]) -> AsyncIterator[Fields]:
        async for request in requests:
            yield request


@grpc_deployment(expose=False)
class Inner(Echo):
    pass


@grpc_deployment
class Passed(EchoBase):
    def __init__(self, echo: EchoHandle) -> None:
        self.echo = echo

    async def Get(self, request: Fields) -> Fields:
        return await self.echo.Get(request)

    async def Each(self, requests: AsyncIterator[Fields]) -> AsyncIterator[Fields]:
        async for reply in self.echo.Each(requests):
            yield reply


async def test_every_way_to_call(serving: Callable[..., sdk.testing.Server]) -> None:
    server = serving(Passed.bind(Inner.bind()))
    message = Fields(**VALUES)
    assert server.client(EchoSyncClient).Get(message) == message
    async with server.client(EchoClient) as client:
        assert [reply async for reply in client.Each([message, message])] == [message, message]


def test_json(serving: Callable[..., sdk.testing.Server]) -> None:
    server = serving(Echo.bind())
    request = urllib.request.Request(
        f"http://{server.target}/fields.Echo/Get",
        json.dumps(VALUES).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        assert json.load(response) == VALUES

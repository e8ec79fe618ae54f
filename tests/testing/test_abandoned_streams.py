"""Streams that the reader of a client leaves: the call is cancelled, and its handler with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest
from harness_pb2 import Number, Text
from harness_sdk import GreeterClient, GreeterSyncClient

import sdk.testing
from tests.support.loops import PATIENCE_S
from tests.testing.harness_apps import Greeter, Plain

pytestmark = pytest.mark.timeout(60)

WRITTEN, CANCELLED = threading.Semaphore(0), threading.Semaphore(0)


@sdk.grpc_deployment(max_ongoing_requests=1)
class Endless(Plain):
    """Streams that only a cancellation ends."""

    async def Count(self, request: Number) -> AsyncIterator[Number]:
        yield Number()
        await self.wait()

    async def Sum(self, request: AsyncIterator[Number]) -> Number:
        try:
            async for _ in request:
                WRITTEN.release()
        except asyncio.CancelledError:
            CANCELLED.release()
            raise
        return Number()

    async def Chat(self, request: AsyncIterator[Text]) -> AsyncIterator[Text]:
        yield Text()
        await self.wait()

    async def wait(self) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            CANCELLED.release()
            raise


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(Endless.bind()) as server:
        yield server


async def by_break(client: GreeterClient) -> None:
    async for _ in client.Count(Number()):
        break


async def by_return(client: GreeterClient) -> Number | None:
    call = client.Count(Number())
    async for message in call:
        return message
    return None


async def by_an_exception(client: GreeterClient) -> None:
    async def read() -> None:
        async for _ in client.Count(Number()):
            raise LookupError

    with pytest.raises(LookupError):
        await read()


async def by_read(client: GreeterClient) -> None:
    await client.Count(Number()).read()


async def at_the_end_of_a_task(client: GreeterClient) -> None:
    async def read_one() -> None:
        messages = aiter(client.Chat([Text()]))
        await anext(messages)

    await asyncio.create_task(read_one())


async def with_its_task(client: GreeterClient) -> None:
    read = asyncio.Event()

    async def read_all() -> None:
        async for _ in client.Chat([Text()]):
            read.set()

    task = asyncio.create_task(read_all())
    await read.wait()
    task.cancel()
    await asyncio.wait([task])


async def with_requests_to_write(client: GreeterClient) -> None:
    call = client.Chat()
    await call.write(Text())
    await call.read()


async def while_it_writes(client: GreeterClient) -> None:
    call = client.Sum()
    await call.write(Number())
    await asyncio.to_thread(WRITTEN.acquire, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    "leave",
    [
        by_break,
        by_return,
        by_an_exception,
        by_read,
        at_the_end_of_a_task,
        with_its_task,
        with_requests_to_write,
        while_it_writes,
    ],
)
async def test_a_stream_that_is_left_is_cancelled(
    server: sdk.testing.Server, leave: Callable[[GreeterClient], Awaitable[Any]]
) -> None:
    async with server.client(GreeterClient) as client:
        for _ in range(2):  # the second one waits for the place of the first
            await leave(client)
            assert await asyncio.to_thread(CANCELLED.acquire, timeout=PATIENCE_S), "its handler still runs"


def test_a_blocking_stream_that_is_left_is_cancelled(server: sdk.testing.Server) -> None:
    for _ in server.client(GreeterSyncClient).Count(Number()):
        break
    assert CANCELLED.acquire(timeout=PATIENCE_S)


async def test_a_stream_that_is_held_can_be_read_after_a_break(serving: Callable[..., Any]) -> None:
    async with serving(Greeter.bind()).client(GreeterClient) as client:
        call = client.Count(Number(number=3))
        async for first in call:
            assert first.number == 0
            break
        assert [message.number async for message in call] == [1, 2]
        assert await call.code() is grpc.StatusCode.OK
        assert call.done()
        assert not call.cancelled()
        assert isinstance(call, grpc.aio.UnaryStreamCall)


async def test_the_end_of_the_loop_before_a_stream_is_dropped(server: sdk.testing.Server) -> None:
    async def leave() -> Any:
        client = server.client(GreeterClient)
        call = client.Count(Number())
        await call.read()
        return client, call

    loop = asyncio.new_event_loop()
    client, call = await asyncio.to_thread(loop.run_until_complete, leave())
    await asyncio.to_thread(loop.run_until_complete, client.close())
    loop.close()
    del call  # there is nothing left to cancel, and nothing is raised: pytest would report it
    assert CANCELLED.acquire(timeout=PATIENCE_S)

"""Handlers whose client is gone, and threads that outlive their call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from test_call import SERVER, Peer, in_loop

from sdk.context import ServicerContext


async def never_waits(request: Int32Value) -> AsyncIterator[StringValue]:
    while True:
        yield StringValue(value="x" * 1000)


async def never_waits_but_writes(request: Int32Value, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
    while True:
        await grpc_context.write(StringValue(value="x" * 1000))
    yield


@pytest.mark.parametrize("handler", [never_waits, never_waits_but_writes])
def test_a_handler_that_never_waits_ends_with_its_connection(handler: Any) -> None:
    async def body(serve: Any) -> None:
        server = serve(Stream=(SERVER, handler))
        peer = Peer(server)
        peer.connection.pause_writing()
        peer.call("Stream", Int32Value())
        await asyncio.sleep(0.01)
        # As uvloop does it: the transport drops what is written and frees the buffer; the loss is told a little later.
        peer.transport.closed = True
        peer.transport.write = lambda data: None  # type: ignore[method-assign]
        peer.connection.resume_writing()
        asyncio.get_running_loop().call_soon(peer.connection.connection_lost, None)
        await asyncio.sleep(0.01)
        assert server.ongoing == 0

    in_loop(body)

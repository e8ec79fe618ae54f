"""Compressed requests: long ones are decompressed in a thread, and do not block other calls."""

from __future__ import annotations

import asyncio
import gzip
import random
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire import frames
from sdk._wire.frames import INFLATE_IN_THREAD_BYTES, pack_prefix
from sdk._wire.host import WireSettings
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Peer, turns

SHORT = Int32Value(value=7).SerializeToString()
# A known field, and an unknown one, whose bytes do not compress.
LONG = SHORT + b"\x12\x80\x80\x01" + random.Random(1).randbytes(1 << 14)


def packed(message: bytes, flag: int = 1) -> bytes:
    data = gzip.compress(message)
    return pack_prefix(flag, len(data)) + data


async def unary(request: Int32Value) -> StringValue:
    return StringValue(value=str(request.value))


def unary_sync(request: Int32Value) -> StringValue:
    return StringValue(value=str(request.value))


async def server(request: Int32Value) -> AsyncIterator[StringValue]:
    yield StringValue(value=str(request.value))


async def client(requests: AsyncIterator[Int32Value]) -> StringValue:
    return StringValue(value=str(sum([request.value async for request in requests])))


def client_sync(requests: Iterator[Int32Value]) -> StringValue:
    return StringValue(value=str(sum(request.value for request in requests)))


async def bidi(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
    async for request in requests:
        yield StringValue(value=str(request.value))


HANDLERS = [
    (UNARY, unary),
    (UNARY, unary_sync),
    (SERVER, server),
    (CLIENT, client),
    (CLIENT, client_sync),
    (BIDI, bidi),
]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Threads that decompress messages."""
    found: list[int] = []
    decompress = frames.decompress

    def spy(*arguments: Any) -> bytes:
        found.append(threading.get_ident())
        return decompress(*arguments)

    monkeypatch.setattr(frames, "decompress", spy)
    return found


def test_the_messages_match_their_names() -> None:
    assert len(packed(SHORT)) < INFLATE_IN_THREAD_BYTES <= len(packed(LONG)) - 5
    assert Int32Value.FromString(LONG).value == 7


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_a_long_message_is_decompressed_off_the_loop(
    cardinality: Any, handler: Any, threads: list[int], serve: Any
) -> None:
    async def body(serve: Any) -> None:
        peer = Peer(serve(Get=(cardinality, handler)))
        for message in (SHORT, LONG):
            peer.transport.chunks.clear()
            peer.head("Get", grpc__encoding="gzip")
            peer.raw(packed(message))
            peer.end()
            answer = await peer.answer()
            assert [StringValue.FromString(data).value for _, data in answer.messages] == ["7"]

    await body(serve)
    here = threading.get_ident()
    in_a_thread = [thread != here for thread in threads]
    assert in_a_thread == [handler is unary_sync, True], "a sync handler's one message is always the work of its thread"


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (packed(LONG, flag=3), "message with the flag 3"),
        (pack_prefix(1, len(LONG)) + LONG, "message is not valid gzip"),
        (packed(bytes(1_000_000)), "longer than the limit"),
    ],
    ids=["flag", "no gzip", "too long"],
)
async def test_errors_are_reported(cardinality: Any, handler: Any, data: bytes, says: str, serve: Any) -> None:
    peer = Peer(serve(Get=(cardinality, handler), settings=WireSettings(max_receive_message_length=100_000)))
    peer.head("Get", grpc__encoding="gzip")
    peer.raw(data)
    peer.end()
    assert says in (await peer.answered())["grpc-message"]


async def test_a_message_is_not_lost_if_the_wait_for_it_times_out(monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
    go, decompress = threading.Event(), frames.decompress

    def slow(*arguments: Any) -> bytes:
        go.wait(10)
        return decompress(*arguments)

    monkeypatch.setattr(frames, "decompress", slow)

    async def impatient(requests: AsyncIterator[Int32Value]) -> StringValue:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(requests), 0.001)
        go.set()
        request = await anext(requests)
        return StringValue(value=str(request.value))

    peer = Peer(serve(Get=(CLIENT, impatient)))
    peer.head("Get", grpc__encoding="gzip")
    peer.raw(packed(LONG))
    peer.end()
    answer = await peer.answer()
    assert StringValue.FromString(answer.messages[0][1]).value == "7"


@pytest.mark.parametrize(("cardinality", "handler"), [(UNARY, unary), (CLIENT, client)])
async def test_a_disconnect_during_decompression_leaves_nothing(
    cardinality: Any, handler: Any, monkeypatch: pytest.MonkeyPatch, serve: Any
) -> None:
    go, began, decompress = threading.Event(), threading.Event(), frames.decompress

    def slow(*arguments: Any) -> bytes:
        began.set()
        go.wait(10)
        return decompress(*arguments)

    monkeypatch.setattr(frames, "decompress", slow)

    wire = serve(Get=(cardinality, handler))
    peer = Peer(wire)
    peer.head("Get", grpc__encoding="gzip")
    peer.raw(packed(LONG))
    peer.end()
    assert await asyncio.to_thread(began.wait, 10)
    peer.transport.closed = True
    peer.connection.connection_lost(None)
    await turns()
    assert wire.host.ongoing == 0
    go.set()

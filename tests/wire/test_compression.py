"""Compressed responses: by choice of a handler, a deployment or an interceptor, and for which clients."""

from __future__ import annotations

import asyncio
import gzip
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import current_context
from sdk._wire.compression import DEFLATE_IN_THREAD_BYTES
from sdk.context import ServicerContext
from tests.support.wire_rig import CLIENT, SERVER, UNARY, Peer

GZIP, DEFLATE, NONE = grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression
INFLATE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
ACCEPT = {"grpc__accept__encoding": "identity, deflate, gzip"}
LONG = StringValue(value="ha" * 1000)
TOO_LATE = "set_compression comes too late"


def ask(compression: Any) -> None:
    current_context().set_compression(compression)


def unary_async(compression: Any) -> Any:
    async def handler(request: Any) -> StringValue:
        ask(compression)
        return LONG

    return handler


def unary_sync(compression: Any) -> Any:
    def handler(request: Any) -> StringValue:
        ask(compression)
        return LONG

    return handler


def stream_async(compression: Any) -> Any:
    async def handler(request: Any) -> AsyncIterator[StringValue]:
        ask(compression)
        yield LONG
        yield LONG

    return handler


def stream_sync(compression: Any) -> Any:
    def handler(request: Any) -> Iterator[StringValue]:
        ask(compression)
        yield LONG
        yield LONG

    return handler


def writer(compression: Any) -> Any:
    async def handler(request: Any, grpc_context: ServicerContext) -> None:
        grpc_context.set_compression(compression)
        await grpc_context.write(LONG)
        await grpc_context.write(LONG)

    return handler


HANDLERS = [
    (UNARY, unary_async),
    (UNARY, unary_sync),
    (SERVER, stream_async),
    (SERVER, stream_sync),
    (SERVER, writer),
]


@pytest.mark.parametrize(("cardinality", "make"), HANDLERS)
@pytest.mark.parametrize(
    ("compression", "accepted", "encoding"),
    [
        (GZIP, "identity, deflate, gzip", "gzip"),
        (DEFLATE, "identity,deflate,gzip", "deflate"),
        (GZIP, "identity, deflate", None),
        (GZIP, "xgzip", None),
        (GZIP, None, None),
        (NONE, "identity, deflate, gzip", None),
    ],
)
async def test_responses_are_compressed_if_the_client_accepts_it(
    cardinality: Any, make: Any, compression: Any, accepted: str | None, encoding: str | None, serve: Any
) -> None:
    peer = Peer(serve(Get=(cardinality, make(compression))))
    peer.call("Get", Int32Value(), **({"grpc__accept__encoding": accepted} if accepted else {}))
    answer = await peer.answer()
    assert dict(answer.head).get("grpc-encoding") == encoding
    assert dict(answer.trailers)["grpc-status"] == "0"
    assert len(answer.messages) == (1 if cardinality is UNARY else 2)
    for flag, message in answer.messages:
        assert flag == (encoding is not None)
        plain = INFLATE[encoding](message) if encoding else message
        assert StringValue.FromString(plain) == LONG


async def test_the_response_to_a_client_stream_is_compressed(serve: Any) -> None:
    peer = Peer(serve(Get=(CLIENT, unary_async(GZIP))))
    peer.head("Get", **ACCEPT)
    peer.end()
    answer = await peer.answer()
    assert answer.messages[0][0] == 1


@pytest.mark.parametrize(("cardinality", "make"), HANDLERS)
async def test_a_deployment_compresses_unless_its_handler_chooses_otherwise(
    cardinality: Any, make: Any, serve: Any
) -> None:
    async def plain(request: Any) -> StringValue:
        return LONG

    peer = Peer(serve(compression=GZIP, Plain=(UNARY, plain), Own=(cardinality, make(NONE))))
    peer.call("Plain", Int32Value(), **ACCEPT)
    answer = await peer.answer()
    assert (dict(answer.head)["grpc-encoding"], answer.messages[0][0]) == ("gzip", 1)
    peer.transport.chunks.clear()
    peer.call("Own", Int32Value(), **ACCEPT)
    answer = await peer.answer()
    assert "grpc-encoding" not in dict(answer.head)
    assert {flag for flag, _ in answer.messages} == {0}


async def test_a_message_that_would_not_get_shorter_is_sent_uncompressed(serve: Any) -> None:
    async def handler(request: Any) -> StringValue:
        ask(GZIP)
        return StringValue(value="x")

    peer = Peer(serve(Get=(UNARY, handler)))
    peer.call("Get", Int32Value(), **ACCEPT)
    assert (await peer.answer()).messages == [(0, StringValue(value="x").SerializeToString())]


async def skip_first_async(request: Any) -> AsyncIterator[StringValue]:
    ask(GZIP)
    current_context().disable_next_message_compression()
    yield LONG
    yield LONG


def skip_first_sync(request: Any) -> Iterator[StringValue]:
    ask(GZIP)
    current_context().disable_next_message_compression()
    yield LONG
    yield LONG


async def skip_before_asking(request: Any) -> AsyncIterator[StringValue]:
    current_context().disable_next_message_compression()
    ask(GZIP)
    yield LONG
    yield LONG


async def skip_and_ask_again(request: Any) -> AsyncIterator[StringValue]:
    ask(DEFLATE)
    current_context().disable_next_message_compression()
    ask(GZIP)
    yield LONG
    yield LONG


@pytest.mark.parametrize("handler", [skip_first_async, skip_first_sync, skip_before_asking, skip_and_ask_again])
async def test_one_message_can_be_left_uncompressed(handler: Any, serve: Any) -> None:
    peer = Peer(serve(Get=(SERVER, handler)))
    peer.call("Get", Int32Value(), **ACCEPT)
    answer = await peer.answer()
    assert dict(answer.head)["grpc-encoding"] == "gzip"
    assert [flag for flag, _ in answer.messages] == [0, 1]


async def test_the_encoding_is_named_in_initial_metadata_sent_early(serve: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.set_compression(GZIP)
        await grpc_context.send_initial_metadata([("early", "1")])
        return LONG

    peer = Peer(serve(Get=(UNARY, handler)))
    peer.call("Get", Int32Value(), **ACCEPT)
    answer = await peer.answer()
    assert ("early", "1") in answer.head
    assert ("grpc-encoding", "gzip") in answer.head
    assert answer.messages[0][0] == 1


@pytest.mark.parametrize("first", ["message", "metadata"])
async def test_setting_compression_too_late_is_an_error(first: str, serve: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
        if first == "message":
            yield LONG
        else:
            await grpc_context.send_initial_metadata([])
        with pytest.raises(RuntimeError, match=TOO_LATE):
            grpc_context.set_compression(GZIP)
        yield StringValue(value="late")

    peer = Peer(serve(Get=(SERVER, handler)))
    peer.call("Get", Int32Value(), **ACCEPT)
    answer = await peer.answer()
    assert StringValue.FromString(answer.messages[-1][1]).value == "late"


async def test_an_unknown_compression_is_refused(serve: Any) -> None:
    async def handler(request: Any) -> StringValue:
        with pytest.raises(ValueError, match="'brotli' is not a compression"):
            ask("brotli")
        return LONG

    peer = Peer(serve(Get=(UNARY, handler)))
    peer.call("Get", Int32Value(), **ACCEPT)
    assert (await peer.answered())["grpc-status"] == "0"


@pytest.mark.parametrize("cardinality", [UNARY, SERVER])
async def test_a_long_message_is_compressed_off_the_loop(
    cardinality: Any, monkeypatch: pytest.MonkeyPatch, serve: Any
) -> None:
    threads: list[int] = []
    compressobj = zlib.compressobj

    def spy(**options: Any) -> Any:
        threads.append(threading.get_ident())
        return compressobj(**options)

    monkeypatch.setattr("sdk._wire.compression.zlib.compressobj", spy)

    def message(request: Any) -> StringValue:
        return StringValue(value="x" * request.value)

    async def unary(request: Any) -> StringValue:
        return message(request)

    async def stream(request: Any) -> AsyncIterator[StringValue]:
        yield message(request)

    handler = unary if cardinality is UNARY else stream
    peer = Peer(serve(compression=GZIP, Get=(cardinality, handler)))
    for size in (100, DEFLATE_IN_THREAD_BYTES):
        peer.transport.chunks.clear()
        peer.call("Get", Int32Value(value=size), **ACCEPT)
        answer = await peer.answer()
        assert StringValue.FromString(gzip.decompress(answer.messages[0][1])).value == "x" * size
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False]


async def test_a_call_that_is_cancelled_while_its_message_is_compressed_ends(serve: Any) -> None:
    async def handler(request: Any) -> StringValue:
        return StringValue(value="x" * 10_000_000)

    server = serve(compression=GZIP, Get=(UNARY, handler))
    peer = Peer(server)
    peer.call("Get", Int32Value(), **ACCEPT)
    await asyncio.sleep(0)
    peer.transport.closed = True  # a write from now on fails
    peer.connection.connection_lost(None)
    while server.host.ongoing:
        await asyncio.sleep(0.001)

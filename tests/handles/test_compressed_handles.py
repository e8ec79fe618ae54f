"""Compression of calls through handles: of responses by the handler's choice, of requests by the caller's."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle, SyncProbeBase, SyncProbeHandle

from sdk import current_context
from sdk._channel import compression
from sdk._channel.connection import ReplicaConnection
from sdk._channel.target import count_retries
from sdk._wire.compression import DEFLATE_IN_THREAD_BYTES
from sdk._wire.frames import INFLATE_IN_THREAD_BYTES, pack_prefix
from sdk.errors import RpcError
from tests.handles.test_long_messages import answered, chunk
from tests.support.served_handle import Deployment, deployment, outer_call

GZIP, DEFLATE, NONE = grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression
LONG = "ha" * 40_000
_OK = b"0\r\ngrpc-status: 0\r\nrequest_id: r\r\n\r\n"


def chosen(request: Ask) -> Told:
    """Compress the response as the request says; answer with what the replica received."""
    if request.act:
        current_context().set_compression(grpc.Compression[request.act])
    return Told(text=request.note, number=int(current_context()._call._encoding != b"identity"))


class Callee(AsyncProbeBase):
    async def Unary(self, request: Ask) -> Told:
        return chosen(request)

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        for number in range(request.number):
            yield Told(text=chosen(request).text if not number else request.note, number=number)

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        notes = [request.note async for request in requests]
        return Told(text="".join(notes), number=chosen(Ask()).number)

    async def Both(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Told]:
        async for request in requests:
            yield Told(text=request.note)


class SyncCallee(SyncProbeBase):
    def Unary(self, request: Ask) -> Told:
        return chosen(request)

    def Down(self, request: Ask) -> Iterator[Told]:
        for number in range(request.number):
            yield Told(text=chosen(request).text if not number else request.note, number=number)

    def Up(self, requests: Iterator[Ask]) -> Told:
        return Told(text="".join(request.note for request in requests))

    def Both(self, requests: Iterator[Ask]) -> Iterator[Told]:
        for request in requests:
            yield Told(text=request.note)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> bytearray:
    """All bytes that callers receive."""
    found = bytearray()
    receive = ReplicaConnection.data_received

    def spy(connection: ReplicaConnection, data: bytes) -> None:
        found.extend(data)
        receive(connection, data)

    monkeypatch.setattr(ReplicaConnection, "data_received", spy)
    return found


@pytest.mark.parametrize("act", ["Gzip", "Deflate"])
@pytest.mark.parametrize(("callee", "handles"), [(Callee, AsyncProbeHandle), (SyncCallee, SyncProbeHandle)])
async def test_responses_are_compressed_as_the_handler_says(
    callee: Any, handles: Any, act: str, received: bytearray
) -> None:
    async with deployment(callee()) as served:
        handle = handles(served.handle)
        assert (await handle.Unary(Ask(act=act, note=LONG))).text == LONG
        assert (await handle.Unary(Ask(act=act, note="x"))).text == "x", "it would not get shorter"
        stream = [told async for told in handle.Down(Ask(act=act, note=LONG, number=3))]
    assert stream == [Told(text=LONG, number=number) for number in range(3)]
    assert len(received) < len(LONG), "four long responses have fewer bytes than one"
    assert b"grpc-encoding: %s" % act.lower().encode() in received


async def test_a_deployment_compresses_its_responses(received: bytearray) -> None:
    async with deployment(Callee(), compression=GZIP) as served:
        handle = AsyncProbeHandle(served.handle)
        assert (await handle.Unary(Ask(note=LONG))).text == LONG
        assert (await handle.Up([Ask(note=LONG), Ask(note=LONG)])).text == 2 * LONG
        assert [told.text async for told in handle.Both([Ask(note=LONG), Ask(note="x")])] == [LONG, "x"]
        assert len(received) < len(LONG)
        assert (await handle.Unary(Ask(act="NoCompression", note=LONG))).text == LONG
        assert len(received) > len(LONG)


async def test_a_handler_reads_the_encodings_of_its_own_caller_only(handle: AsyncProbeHandle) -> None:
    with outer_call(("grpc-accept-encoding", "identity"), ("grpc-encoding", "br")):
        assert await handle.Unary(Ask(act="Gzip", note=LONG)) == Told(text=LONG)


@pytest.mark.parametrize("choice", [GZIP, DEFLATE])
async def test_requests_are_compressed_as_the_caller_says(
    handle: AsyncProbeHandle, choice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = bytearray()
    send, write = ReplicaConnection.send, ReplicaConnection.write

    def spy_send(connection: ReplicaConnection, call: Any, head: bytes, body: bytes = b"") -> None:
        sent.extend(head + body)
        send(connection, call, head, body)

    def spy_write(connection: ReplicaConnection, data: bytes) -> None:
        sent.extend(data)
        write(connection, data)

    monkeypatch.setattr(ReplicaConnection, "send", spy_send)
    monkeypatch.setattr(ReplicaConnection, "write", spy_write)
    assert await handle.Unary(Ask(note=LONG), compression=choice) == Told(text=LONG, number=1)
    assert await handle.Unary(Ask(note="x"), compression=choice) == Told(text="x", number=1)
    assert len([told async for told in handle.Down(Ask(note=LONG, number=3), compression=choice)]) == 3
    assert (await handle.Up([Ask(note=LONG), Ask(note=LONG)], compression=choice)) == Told(text=2 * LONG, number=1)
    assert [told.text async for told in handle.Both([Ask(note=LONG)], compression=choice)] == [LONG]
    assert len(sent) < len(LONG), "five long messages have fewer bytes than one"
    assert b"grpc-encoding: %s\r\n" % choice.name.lower().encode() in sent
    for without in NONE, None:
        assert await handle.Unary(Ask(note="x"), compression=without) == Told(text="x")


async def test_an_unknown_compression_is_refused(handle: AsyncProbeHandle) -> None:
    with pytest.raises(ValueError, match=r"'br' is not a compression; give a member of grpc\.Compression"):
        handle.Unary(Ask(), compression="br")  # type: ignore[arg-type]


async def test_a_compressed_request_over_the_limit_is_refused() -> None:
    async with deployment(Callee(), max_receive_message_length=10_000) as served:
        handle = AsyncProbeHandle(served.handle)
        for call in handle.Unary(Ask(note=LONG), compression=GZIP), handle.Up([Ask(note=LONG)], compression=GZIP):
            with pytest.raises(RpcError, match=r"RESOURCE_EXHAUSTED: .*longer than the limit of 10000"):
                await call


async def test_a_compressed_response_over_the_limit_is_refused(
    handle: AsyncProbeHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "max_message_length", 10_000)
    too_long = "RESOURCE_EXHAUSTED: the compressed response is longer than the limit of 10000 bytes"
    with pytest.raises(RpcError, match=too_long):
        await handle.Unary(Ask(act="Gzip", note=LONG))
    with pytest.raises(RpcError, match=too_long):
        await anext(handle.Down(Ask(act="Gzip", note=LONG, number=3)))
    assert (await handle.Unary(Ask(note=LONG))).text == LONG, "one that is not compressed can't surprise"


async def test_long_messages_are_compressed_and_decompressed_off_the_loop(
    handle: AsyncProbeHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    decompress, compressobj = compression.decompress, zlib.compressobj

    def spy_decompress(*arguments: Any) -> bytes:
        threads.append(threading.get_ident())
        return decompress(*arguments)

    def spy_compressobj(**options: Any) -> Any:
        threads.append(threading.get_ident())
        return compressobj(**options)

    monkeypatch.setattr(compression, "decompress", spy_decompress)
    monkeypatch.setattr("sdk._wire.compression.zlib.compressobj", spy_compressobj)
    here = threading.get_ident()
    half = "".join(map(chr, range(0x1000, 0x1000 + INFLATE_IN_THREAD_BYTES)))
    assert len(half) * 3 < DEFLATE_IN_THREAD_BYTES
    await handle.Unary(Ask(act="Gzip", note="x" * 1000), compression=GZIP)
    assert set(threads) == {here}
    threads.clear()
    await handle.Unary(Ask(act="Gzip", note=half * 4), compression=GZIP)
    async for _ in handle.Down(Ask(act="Gzip", note=half * 4, number=1), compression=GZIP):
        pass
    assert here not in threads
    assert len(threads) == 6


def compressed(data: bytes) -> bytes:
    return b"%sgrpc-encoding: gzip\r\n\r\n%s" % (HEAD[:-2], chunk(data) + _OK)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = Told(text="x" * 100).SerializeToString()
PACKED = gzip.compress(PLAIN, mtime=0)  # it is in the names of tests


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (pack_prefix(1, len(PACKED)) + PACKED, Told(text="x" * 100)),
        (pack_prefix(0, len(PLAIN)) + PLAIN, Told(text="x" * 100)),
        (pack_prefix(2, len(PACKED)) + PACKED, "INTERNAL: response: message with the flag 2; only 0 and 1 are defined"),
        (pack_prefix(1, len(PLAIN)) + PLAIN, "INTERNAL: response: message is not valid gzip"),
        (pack_prefix(1, len(PACKED) - 1) + PACKED[:-1], "INTERNAL: response: message is not valid gzip"),
        (pack_prefix(1, len(PACKED)), "INTERNAL: response: the request ended before its message was complete"),
    ],
)
async def test_a_response_that_is_not_what_it_says_is_internal(data: bytes, outcome: Any) -> None:
    found, _ = await answered(iter([compressed(data)]))
    assert found == outcome if isinstance(outcome, Told) else str(found).startswith(outcome)


async def test_an_unknown_encoding_of_a_response_is_internal() -> None:
    # https://github.com/grpc/grpc/blob/master/doc/compression.md#compression-method-asymmetry-between-peers
    response = compressed(pack_prefix(1, 3) + b"abc").replace(b"gzip", b"br")
    found, _ = await answered(iter([response]))
    assert found == "INTERNAL: response: compressed message on a call with the encoding 'br'"
    response = HEAD + chunk(pack_prefix(1, len(PACKED)) + PACKED) + _OK
    found, _ = await answered(iter([response]))
    assert found == "INTERNAL: response: compressed message on a call with the encoding 'identity'"


async def test_a_deadline_ends_a_call_whose_response_is_decompressed(
    handle: AsyncProbeHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, decompress = threading.Event(), compression.decompress

    def slow(*arguments: Any) -> bytes:
        assert go.wait(60)
        return decompress(*arguments)

    monkeypatch.setattr(compression, "decompress", slow)
    call = handle.Unary(Ask(act="Gzip", note="".join(map(chr, range(0x1000, 0x3000)))), timeout=0.5)
    with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
        await call
    go.set()


async def test_a_call_that_a_replica_refuses_is_sent_again_compressed(
    served: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At once: the caller would read that its connections close while a thread compresses.
    monkeypatch.setattr("sdk._wire.compression.DEFLATE_IN_THREAD_BYTES", 1 << 20)
    handle = AsyncProbeHandle(served.handle)
    notes = [LONG, "x", LONG]

    async def calls() -> list[Told]:
        unary = handle.Unary(Ask(note=LONG), compression=GZIP)
        stream = handle.Up([Ask(note=note) for note in notes], compression=GZIP)
        return [await unary, await stream]

    expected = [Told(text=LONG, number=1), Told(text="".join(notes), number=1)]
    assert await calls() == expected
    (replica,) = served.replicas
    for connection in list(replica._connections):
        connection.close_when_idle()  # the caller has not read that yet
    assert await calls() == expected
    named = served.handle.deployment_name
    counted = {reason: number for (_, name, reason), number in count_retries().items() if name == named}
    assert counted == {"refused": 2}

"""Malformed requests, from peers other than Envoy: each costs little, ends, and disturbs no other call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk._wire.connection import Connection
from sdk._wire.frames import pack_prefix
from sdk._wire.host import WireSettings
from sdk._wire.http_errors import MAX_HEADER_BYTES
from sdk._wire.server import WireServer
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Peer

LINE = b"POST /t.T/Double HTTP/1.1\r\n"
HEAD = LINE + b"host: x\r\ncontent-type: application/grpc\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
BODY = b"7\r\n\0\0\0\0\2\x08\x04\r\n0\r\n\r\n"
GOOD = CHUNKED + BODY


async def double(request: Int32Value) -> StringValue:
    handled.append(request.value)
    return StringValue(value=str(request.value * 2))


async def hang(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
    async for _ in requests:
        yield StringValue(value="first")
    await asyncio.Event().wait()


handled: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_handled() -> None:
    handled.clear()


async def turns() -> None:
    """Let the loop run everything that is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Cut data into pieces. Single bytes come at its beginning, and around the limit: those between repeat."""
    at = 0
    while at < len(data):
        end = MAX_HEADER_BYTES - 2000 if size == 1 and at == 5000 else at + size
        yield data[at:end]
        at = end


REFUSED = {
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    "an HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no version": (b"POST /t.T/Double\r\n\r\n", 415),
    "a version that is not": (b"POST /t.T/Double HTTP/1.9\r\n\r\n", 400),
    "a method in lower case": (b"post /t.T/Double HTTP/1.1\r\n\r\n", 400),
    "a method that is not": (b"BREW /t.T/Double HTTP/1.1\r\n\r\n", 400),
    "an upgrade": (LINE + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n", 415),
    "an upgrade of a call": (HEAD + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n", 200),
    "a tunnel": (b"CONNECT x:1 HTTP/1.1\r\n\r\n", 405),
    "a space in the path": (b"POST /t.T/Dou ble HTTP/1.1\r\n\r\n", 400),
    "a control character in the path": (b"POST /t.T/\x01 HTTP/1.1\r\n\r\n", 400),
    "a folded header": (HEAD + b"a: b\r\n c\r\n\r\n", 400),
    "a folded transfer-encoding": (HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n", 400),
    "a NUL in a value": (HEAD + b"a: b\0c\r\n\r\n", 400),
    "a NUL in a name": (HEAD + b"a\0: b\r\n\r\n", 400),
    "a bare CR": (HEAD + b"a: b\rc: d\r\n\r\n", 400),
    "a bare LF": (HEAD + b"a: b\nc: d\r\n\r\n", 400),
    "an end by LF": (HEAD + b"a: b\r\n\n", 400),
    "a space before the colon": (HEAD + b"a : b\r\n\r\n", 400),
    "a space in a name": (HEAD + b"a b: c\r\n\r\n", 400),
    "no name": (HEAD + b": b\r\n\r\n", 400),
    "no colon": (HEAD + b"ab\r\n\r\n", 400),
    "both lengths": (HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "both lengths, the other way round": (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", 400),
    "two lengths": (HEAD + b"content-length: 3\r\ncontent-length: 5\r\n\r\n", 400),
    "the same length twice": (HEAD + b"content-length: 3\r\ncontent-length: 3\r\n\r\n", 400),
    "a list of lengths": (HEAD + b"content-length: 3, 3\r\n\r\n", 400),
    "a negative length": (HEAD + b"content-length: -3\r\n\r\n", 400),
    "a length with a sign": (HEAD + b"content-length: +3\r\n\r\n", 400),
    "a huge length": (HEAD + b"content-length: 99999999999999999999\r\n\r\n", 400),
    "an empty length": (HEAD + b"content-length:\r\n\r\n", 400),
    "chunked, then something else": (HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n", 400),
    "chunked twice": (HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "not a GET": (b"GET /t.T/Double HTTP/1.1\r\n\r\n", 405),
    "not gRPC": (LINE + b"content-type: application/json\r\n\r\n", 415),
    "no content-type": (LINE + b"\r\n", 415),
    "many headers": (HEAD + b"a: b\r\n" * 50_000 + b"\r\n", 431),
    "a long value": (HEAD + b"a: " + b"b" * 300_000 + b"\r\n\r\n", 431),
    "a long name": (HEAD + b"a" * 300_000 + b": b\r\n\r\n", 431),
    "a long path": (b"POST /" + b"t" * 300_000 + b" HTTP/1.1\r\n\r\n", 431),
    "line ends without end": (b"\r\n" * 150_000, 431),
}


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
async def test_a_malformed_head_is_rejected_and_nothing_after_it_is_read(
    data: bytes, status: int, size: int, serve: Any
) -> None:
    server = serve(Double=(UNARY, double))
    peer, other = Peer(server), Peer(server)
    for piece in cut(data, size):
        peer.connection.data_received(piece)
    assert peer.transport.written.startswith(b"HTTP/1.1 %d " % status)
    assert peer.transport.ended
    said = peer.transport.written
    for _ in range(3):
        peer.connection.data_received(GOOD)
    other.call("Double", Int32Value(value=4))
    await other.answered()
    assert handled == [4]
    assert peer.transport.written == said


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
async def test_a_malformed_request_after_a_good_call_does_not_change_its_response(
    data: bytes, status: int, serve: Any
) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    peer.connection.data_received(GOOD)
    await peer.answered()
    answer = peer.transport.written
    peer.connection.data_received(data)
    assert peer.transport.written.startswith(answer + b"HTTP/1.1 %d " % status)
    assert peer.transport.ended


BAD_BODIES = {
    "a chunk size that overflows": b"fffffffffffffffff\r\n",
    "a negative chunk size": b"-5\r\n",
    "a chunk size with a sign": b"+5\r\n",
    "a chunk size in C": b"0x5\r\n",
    "junk behind a chunk size": b"5 5\r\n",
    "no chunk size": b"\r\n",
    "a line feed behind a chunk size": b"5\n",
    "a chunk longer than its size": b"3\r\nabcd\r\n",
    "a line end in an extension": b'5;a="b\r\n"\r\n',
    "a length in the trailers": b"0\r\ncontent-length: 5\r\n\r\n",
    "another request within the trailers": b"0\r\nPOST /t.T/Double HTTP/1.1\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 300_000,
    "endless zeros": b"0" * 300_000,
    "an endless trailer": b"0\r\na: " + b"b" * 300_000,
    "endless trailers": b"0\r\n" + b"a: b\r\n" * 50_000,
}


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize("data", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize("method", ["Double", "Hang"])
async def test_a_malformed_body_ends_the_call_with_a_status(method: str, data: bytes, size: int, serve: Any) -> None:
    server = serve(Double=(UNARY, double), Hang=(BIDI, hang))
    peer = Peer(server)
    peer.head(method)
    for piece in cut(data, size):
        peer.connection.data_received(piece)
    trailers = await peer.answered()
    assert trailers["grpc-status"] == "13"
    assert trailers["grpc-message"].startswith("the request is malformed: ")
    assert peer.transport.ended
    await turns()
    assert server.host.ongoing == 0
    assert handled == []


async def test_request_trailers_are_not_metadata(serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    peer.connection.data_received(CHUNKED + BODY[:-2] + b"request_id: forged\r\nx: y\r\n\r\n")
    assert (await peer.answered())["request_id"] != "forged"
    peer.transport.chunks.clear()
    peer.connection.data_received(GOOD)
    assert (await peer.answered())["grpc-status"] == "0"


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"content-length: 7\r\n\r\n",
        HEAD + b"expect: 100-continue\r\ncontent-length: 7\r\n\r\n",
        b"\r\n\r\n" + HEAD + b"a:\r\nb: \r\ncontent-length: 7 \r\n\r\n",
        LINE.replace(b" ", b"  ") + b"content-type: application/grpc\r\ncontent-length: 7\r\n\r\n",
    ],
)
async def test_odd_but_unambiguous_requests_are_answered(head: bytes, serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    for _ in range(2):
        peer.transport.chunks.clear()
        peer.connection.data_received(head + b"\0\0\0\0\2\x08\x04")
        assert (await peer.answered())["grpc-status"] == "0"
    assert handled == [4, 4]


@pytest.mark.parametrize("pieces", [[GOOD + GOOD], [GOOD, GOOD], [GOOD + GOOD[:50], GOOD[50:]]])
async def test_a_pipelined_request_ends_the_first_and_is_never_answered(pieces: list[bytes], serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    for piece in pieces:
        peer.connection.data_received(piece)
    trailers = await peer.answered()
    assert trailers["grpc-message"] == "the request is malformed: a request before the answer to the last one"
    await turns()
    assert peer.transport.written.count(b"HTTP/1.1") == 1
    assert peer.transport.ended


async def test_a_request_after_a_rejected_one_does_not_run(serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    peer.connection.data_received(b"GET / HTTP/1.1\r\n\r\n" + GOOD)
    await turns()
    assert handled == []
    assert peer.transport.written.count(b"HTTP/1.1") == 1


async def test_a_peer_that_does_not_drain_its_responses_gets_no_more(serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    peer.connection.data_received(GOOD)
    await peer.answered()
    peer.connection.pause_writing()  # as the transport does when 64 KiB are unsent
    peer.connection.data_received(GOOD)
    assert handled == [4]
    assert peer.transport.ended


async def test_the_rest_of_an_answered_request_is_dropped_and_the_next_one_served(serve: Any) -> None:
    async def refuse(requests: AsyncIterator[Int32Value]) -> StringValue:
        return StringValue(value="enough")

    peer = Peer(serve(Refuse=(CLIENT, refuse), Double=(UNARY, double)))
    peer.head("Refuse")
    await peer.answered()
    for _ in range(100):
        peer.raw(b"x" * 10_000)
    peer.transport.chunks.clear()
    peer.connection.data_received(b"0\r\n\r\n" + GOOD)
    assert (await peer.answered())["grpc-status"] == "0"
    assert handled == [4]


async def test_a_bug_of_the_server_is_logged_answered_and_ends_the_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, serve: Any
) -> None:
    def fail(self: Connection) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Connection, "on_headers_complete", fail)

    peer = Peer(serve(Double=(UNARY, double)))
    with caplog.at_level(logging.ERROR):
        peer.connection.data_received(GOOD)
    assert peer.transport.written.startswith(b"HTTP/1.1 500 ")
    assert peer.transport.ended
    assert "ZeroDivisionError: ours" in caplog.text


async def test_a_system_exit_is_never_swallowed(monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
    def stop(self: Connection) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(Connection, "on_headers_complete", stop)

    peer = Peer(serve(Double=(UNARY, double)))
    with pytest.raises(SystemExit):
        peer.connection.data_received(GOOD)


async def test_headers_up_to_the_limit_are_served_in_one_piece_and_in_many(serve: Any) -> None:
    padding = b"a: " + b"b" * (MAX_HEADER_BYTES - len(HEAD) - 50) + b"\r\n"
    data = HEAD + padding + b"transfer-encoding: chunked\r\n\r\n" + BODY

    for size in (1000, 1 << 20):
        peer = Peer(serve(settings=WireSettings(max_metadata_bytes=MAX_HEADER_BYTES), Double=(UNARY, double)))
        for start in range(0, len(data), size):
            peer.connection.data_received(data[start : start + size])
        assert (await peer.answered())["grpc-status"] == "0"


async def test_too_much_metadata_ends_its_call_and_the_connection_serves_the_next(serve: Any) -> None:
    limit = 1000
    request_id, key = b"request_id: 7\r\n", b"a: "
    room = limit - len(b"request_id7a")

    for size in (1, 1 << 20):
        peer = Peer(serve(settings=WireSettings(max_metadata_bytes=limit), Double=(UNARY, double)))
        for excess, status in ((0, "0"), (1, "8"), (0, "0")):
            padding = key + b"b" * (room + excess) + b"\r\n"
            data = HEAD + request_id + padding + b"transfer-encoding: chunked\r\n\r\n" + BODY
            for start in range(0, len(data), size):
                peer.connection.data_received(data[start : start + size])
            trailers = await peer.answered()
            assert (trailers["grpc-status"], trailers["request_id"]) == (status, "7")
            if excess:
                assert trailers["grpc-message"] == (
                    "the request has 1001 bytes of metadata, more than the limit of 1000 (max_metadata_bytes)"
                )
            peer.transport.chunks.clear()
        assert not peer.transport.closed


async def test_a_long_body_read_with_its_head_does_not_count_as_headers(serve: Any) -> None:
    async def length(request: Int32Value) -> StringValue:
        return StringValue(value=str(request.ByteSize()))

    message = b"\x08\x01\x12\xfc\xff\x0f" + b"x" * 262_140  # a known and an unknown field

    peer = Peer(serve(Double=(UNARY, length)))
    frame = pack_prefix(0, len(message)) + message
    peer.connection.data_received(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(frame), frame))
    assert (await peer.answered())["grpc-status"] == "0"


async def test_an_unknown_method_is_unimplemented_for_any_body(serve: Any) -> None:
    peer = Peer(serve(settings=WireSettings(max_receive_message_length=1000)))
    peer.head("Unknown")
    for _ in range(3):
        peer.raw(pack_prefix(0, 900) + b"x" * 900)
    assert (await peer.answered())["grpc-status"] == "12"


async def test_an_unknown_encoding_is_named_even_if_the_body_is_malformed(serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    peer.head("Double", grpc__encoding="br")
    peer.send(Int32Value())
    peer.send(Int32Value())
    assert (await peer.answered())["grpc-status"] == "12"


async def test_a_call_that_ends_in_the_queue_leaves_nothing(serve: Any) -> None:
    server: WireServer = serve(Hang=(BIDI, hang), Double=(UNARY, double), settings=WireSettings(max_ongoing_requests=1))
    first = Peer(server)
    first.head("Hang")
    peers = [Peer(server) for _ in range(100)]
    for peer in peers:
        peer.call("Double", Int32Value(value=4))
    assert server.host.count_queued() == 100
    for peer in peers[1:]:
        peer.transport.closed = True
        peer.connection.connection_lost(None)
    assert server.host.count_queued() == 1
    first.transport.closed = True
    first.connection.connection_lost(None)
    assert (await peers[0].answered())["grpc-status"] == "0"
    assert handled == [4]


@pytest.mark.parametrize("method", ["Double", "Hang", "Endless"])
async def test_a_disconnect_after_any_byte_leaves_nothing(method: str, serve: Any) -> None:
    async def endless(request: Int32Value) -> AsyncIterator[StringValue]:
        while True:
            yield StringValue()
            await asyncio.sleep(0)

    data = GOOD.replace(b"Double", method.encode())

    server = serve(Double=(UNARY, double), Hang=(BIDI, hang), Endless=(SERVER, endless))
    for length in range(len(data) + 1):
        peer = Peer(server)
        peer.connection.data_received(data[:length])
        if length % 2:
            await turns()
        peer.transport.closed = True
        peer.connection.connection_lost(None)
        await turns()
        assert server.host.ongoing == server.connections == server.host.count_queued() == 0
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not tasks

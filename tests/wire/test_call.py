"""A connection and its calls without sockets: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import RpcError, current_context
from sdk._wire.call import HIGH_WATER
from sdk._wire.frames import LARGE
from sdk._wire.host import WireSettings
from sdk.context import ServicerContext
from sdk.service import Cardinality
from tests.support.loops import PATIENCE_S
from tests.support.virtual_time import in_virtual_time
from tests.support.wire_rig import (
    BIDI,
    CLIENT,
    SERVER,
    UNARY,
    Peer,
    turns,
    until,
    until_it_waits_for_its_client,
)


async def double(request: Int32Value) -> StringValue:
    return StringValue(value=str(request.value * 2))


async def test_unary(serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    for request_id in ("a", "b"):  # keep-alive: two calls on one connection
        peer.transport.chunks.clear()
        peer.call("Double", Int32Value(value=4), request_id=request_id)
        trailers = await peer.answered()
        assert trailers == {"grpc-status": "0", "request_id": request_id}
        assert StringValue(value="8").SerializeToString() in peer.transport.written
    assert not peer.transport.closed


@pytest.mark.parametrize("length", [1, LARGE, 1 << 20])
@pytest.mark.parametrize("trailing", [(), (("a", "b"),)])
async def test_a_unary_response_is_one_write(serve: Any, length: int, trailing: tuple[tuple[str, str], ...]) -> None:
    async def answer(request: Int32Value, grpc_context: Any) -> StringValue:
        grpc_context.set_trailing_metadata(trailing)
        return StringValue(value="x" * length)

    peer = Peer(serve(Double=(UNARY, answer)))
    peer.call("Double", Int32Value())
    trailers = await peer.answered()
    assert (trailers["grpc-status"], "a" in trailers) == ("0", bool(trailing))
    assert StringValue(value="x" * length).SerializeToString() in peer.transport.written
    assert peer.transport.writes == 1


async def test_the_request_id_is_envoys_if_the_client_sent_none(serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    peer.call("Double", Int32Value())
    assert (await peer.answered())["request_id"] == "made"


async def test_sync_handlers_run_in_a_thread_with_the_calls_context(serve: Any) -> None:
    threads: list[int] = []

    def handler(request: Int32Value) -> StringValue:
        threads.append(threading.get_ident())
        return StringValue(value=current_context().request_id())

    peer = Peer(serve(Sync=(UNARY, handler)))
    peer.call("Sync", Int32Value(), request_id="mine")
    assert (await peer.answered())["grpc-status"] == "0"
    assert b"mine" in peer.transport.written
    assert threads
    assert threads[0] != threading.get_ident()


async def stream(request: Int32Value) -> AsyncIterator[StringValue]:
    for i in range(request.value):
        yield StringValue(value=str(i))


def sync_stream(request: Int32Value) -> Iterator[StringValue]:
    for i in range(request.value):
        yield StringValue(value=str(i))


def returns_an_iterator(request: Int32Value) -> Iterator[StringValue]:
    return iter([StringValue(value=str(i)) for i in range(request.value)])


@pytest.mark.parametrize("handler", [stream, sync_stream, returns_an_iterator])
@pytest.mark.parametrize("count", [0, 3])
async def test_server_streaming(handler: Any, count: int, serve: Any) -> None:
    peer = Peer(serve(Stream=(SERVER, handler)))
    peer.call("Stream", Int32Value(value=count))
    assert await peer.answered() == {"grpc-status": "0", "request_id": "made"}
    sent = [peer.transport.written.find(StringValue(value=str(i)).SerializeToString()) for i in range(count)]
    assert sent == sorted(sent)
    assert -1 not in sent


async def fails(request: Int32Value) -> StringValue:
    raise RpcError(grpc.StatusCode.NOT_FOUND, "no user 7")


async def fails_before_its_first_message(request: Int32Value) -> AsyncIterator[StringValue]:
    raise RpcError(grpc.StatusCode.NOT_FOUND, "no user 7")
    yield StringValue()


async def total(requests: AsyncIterator[Int32Value]) -> StringValue:
    return StringValue(value=str(sum([request.value async for request in requests])))


def sync_total(requests: Iterator[Int32Value]) -> StringValue:
    return StringValue(value=str(sum(request.value for request in requests)))


@pytest.mark.parametrize("handler", [total, sync_total])
async def test_client_streaming(handler: Any, serve: Any) -> None:
    peer = Peer(serve(Total=(CLIENT, handler)))
    peer.head("Total")
    for i in range(5):
        peer.send(Int32Value(value=i))
        await asyncio.sleep(0)
    peer.end()
    assert (await peer.answered())["grpc-status"] == "0"
    assert StringValue(value="10").SerializeToString() in peer.transport.written


async def test_bidi_answers_while_the_client_sends(serve: Any) -> None:
    async def echo(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value=f"echo{request.value}")

    peer = Peer(serve(Echo=(BIDI, echo)))
    peer.head("Echo")
    for i in range(3):
        peer.send(Int32Value(value=i))
        for _ in range(5):
            await asyncio.sleep(0)
        assert peer.transport.written.endswith(b"echo%d\r\n" % i)
    peer.end()
    assert (await peer.answered())["grpc-status"] == "0"


async def test_a_slow_handler_stops_a_fast_client(serve: Any) -> None:
    go = asyncio.Event()

    async def slow(requests: AsyncIterator[Int32Value]) -> StringValue:
        await go.wait()
        return StringValue(value=str(len([request async for request in requests])))

    peer = Peer(serve(Slow=(CLIENT, slow)))
    peer.head("Slow")
    message = b"\x08\x01" + b"\x12\x7f" + b"x" * 127  # a known and an unknown field
    count = HIGH_WATER // len(message) + 2
    for _ in range(count):
        peer.send(message)
    assert not peer.transport.reading
    go.set()
    for _ in range(200):
        await asyncio.sleep(0)
    assert peer.transport.reading
    peer.end()
    await peer.answered()
    assert StringValue(value=str(count)).SerializeToString() in peer.transport.written


@pytest.mark.parametrize("handler", [stream, sync_stream])
async def test_a_slow_client_stops_a_fast_handler(handler: Any, serve: Any) -> None:
    peer = Peer(serve(Stream=(SERVER, handler)))
    peer.call("Stream", Int32Value(value=50_000))
    peer.connection.pause_writing()
    await until_it_waits_for_its_client(peer)
    size = len(peer.transport.written)
    await turns()
    assert len(peer.transport.written) == size < 400_000
    peer.connection.resume_writing()
    assert (await peer.answered())["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (RpcError(grpc.StatusCode.NOT_FOUND, "no user 7"), "5", "no user 7"),
        (ValueError("wrong"), "13", "ValueError: wrong"),
    ],
)
async def test_raised(raised: Exception, status: str, message: str, serve: Any) -> None:
    async def fail(request: Int32Value) -> StringValue:
        raise raised

    peer = Peer(serve(Fail=(UNARY, fail), settings=WireSettings(error_details="message")))
    peer.call("Fail", Int32Value())
    assert await peer.answered() == {"grpc-status": status, "grpc-message": message, "request_id": "made"}


@pytest.mark.parametrize(("cardinality", "handler"), [(UNARY, fails), (SERVER, fails_before_its_first_message)])
async def test_an_error_without_messages_is_one_block_of_headers(
    cardinality: Cardinality, handler: Any, serve: Any
) -> None:
    peer = Peer(serve(Fail=(cardinality, handler)))
    peer.call("Fail", Int32Value())
    await peer.answered()
    assert peer.transport.written == (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"
        b"grpc-status: 5\r\ngrpc-message: no user 7\r\nrequest_id: made\r\n\r\n"
    )


async def test_an_empty_stream_is_headers_and_trailers(serve: Any) -> None:
    async def empty(request: Int32Value) -> AsyncIterator[StringValue]:
        for text in ():
            yield StringValue(value=text)

    peer = Peer(serve(Empty=(SERVER, empty)))
    peer.call("Empty", Int32Value())
    await peer.answered()
    assert peer.transport.written == (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\ngrpc-status: 0\r\nrequest_id: made\r\n\r\n"
    )


async def test_context_code_details_and_metadata(serve: Any) -> None:
    async def handler(request: Int32Value, grpc_context: ServicerContext) -> StringValue:
        await grpc_context.send_initial_metadata([("early", "1")])
        grpc_context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        grpc_context.set_details("50 %")
        grpc_context.set_trailing_metadata([("k", "v"), ("b-bin", b"\xff")])
        assert grpc_context.code() is grpc.StatusCode.OUT_OF_RANGE
        assert grpc_context.invocation_metadata() == (("mine", "yes"),)
        assert grpc_context.time_remaining() == pytest.approx(10, abs=1)
        return StringValue()

    peer = Peer(serve(Handler=(UNARY, handler)))
    peer.call("Handler", Int32Value(), mine="yes", grpc__timeout="10S")
    trailers = await peer.answered()
    assert trailers == {
        "grpc-status": "11",
        "grpc-message": "50 %25",
        "k": "v",
        "b-bin": "/w",
        "request_id": "made",
    }
    head, _, _ = peer.transport.written.partition(b"\r\n\r\n")
    assert b"early: 1" in head


async def test_an_abort_that_is_caught_still_aborts(serve: Any) -> None:
    async def handler(request: Int32Value, grpc_context: ServicerContext) -> StringValue:
        try:
            await grpc_context.abort(grpc.StatusCode.ABORTED, "stop")
        except Exception:
            return StringValue(value="caught")

    peer = Peer(serve(Handler=(UNARY, handler)))
    peer.call("Handler", Int32Value())
    assert (await peer.answered())["grpc-status"] == "10"


async def test_a_deadline_ends_the_call_and_cancels_the_handler(serve: Any) -> None:
    cancelled = asyncio.Event()

    async def hang(request: Int32Value) -> StringValue:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    server = serve(Hang=(UNARY, hang), settings=WireSettings(request_timeout_s=0.05))
    peer = Peer(server)
    peer.call("Hang", Int32Value())
    trailers = await peer.answered()
    assert (trailers["grpc-status"], trailers["grpc-message"]) == ("4", "Request timed out after 0.05s.")
    await asyncio.wait_for(cancelled.wait(), PATIENCE_S)
    peer.transport.chunks.clear()
    peer.call("Hang", Int32Value(), grpc__timeout="10m")
    assert (await peer.answered())["grpc-message"] == "Deadline exceeded."
    await turns()
    assert server.host.ongoing == 0


async def test_a_stream_cut_by_a_disconnect_never_looks_complete(serve: Any) -> None:
    seen: list[str] = []

    async def count(requests: AsyncIterator[Int32Value]) -> StringValue:
        try:
            async for _ in requests:  # one by one: the point is when the iterator raises
                seen.append("message")  # noqa: PERF401
            seen.append("complete")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return StringValue()

    server = serve(Count=(CLIENT, count))
    peer = Peer(server)
    peer.head("Count")
    peer.send(Int32Value())
    await turns()
    peer.transport.closed = True
    peer.connection.connection_lost(None)
    await turns()
    assert seen == ["message", "cancelled"]
    assert server.host.ongoing == server.connections == 0


async def test_a_call_cancelled_before_its_handler_starts_is_no_longer_ongoing(serve: Any) -> None:
    server = serve(Double=(UNARY, double))
    peer = Peer(server)
    peer.call("Double", Int32Value())
    assert server.host.ongoing == 1
    peer.transport.closed = True
    peer.connection.connection_lost(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server.host.ongoing == 0


async def test_the_number_of_handlers_and_the_queue_are_bounded(serve: Any) -> None:
    go = asyncio.Event()
    running: list[int] = []

    async def wait(request: Int32Value) -> StringValue:
        running.append(1)
        await go.wait()
        running.pop()
        return StringValue()

    server = serve(Wait=(UNARY, wait), settings=WireSettings(max_ongoing_requests=2, max_queued_requests=1))
    peers = [Peer(server) for _ in range(4)]
    for peer in peers:
        peer.call("Wait", Int32Value())
    await turns()
    assert (len(running), server.host.count_queued()) == (2, 1)
    refused = await peers[3].answered()
    assert refused["grpc-status"] == "8"
    assert refused["grpc-message"] == (
        "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1)."
    )
    go.set()
    for peer in peers[:3]:
        assert (await peer.answered())["grpc-status"] == "0"
    assert server.host.ongoing == 0


async def test_a_thread_that_outlives_its_call_still_counts_as_ongoing(serve: Any) -> None:
    began, go = threading.Event(), threading.Event()

    def block(request: Int32Value) -> StringValue:
        began.set()
        go.wait(PATIENCE_S)
        return StringValue()

    server = serve(Block=(UNARY, block), settings=WireSettings(max_ongoing_requests=1, request_timeout_s=0.05))
    peer = Peer(server)
    peer.call("Block", Int32Value())
    await asyncio.sleep(0)
    assert began.wait(PATIENCE_S)  # the loop is blocked: the timeout does not end the call before
    assert (await peer.answered())["grpc-status"] == "4"
    await turns()
    assert server.host.ongoing == 1
    go.set()
    await until(lambda: not server.host.ongoing)


@pytest.mark.parametrize(
    ("http", "content_type", "status"),
    [("GET", "application/grpc", b"405"), ("POST", "application/json", b"415")],
)
async def test_requests_other_than_grpc_are_rejected(http: str, content_type: str, status: bytes, serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double)))
    peer.head("Double", http=http, content_type=content_type)
    assert peer.transport.written.startswith(b"HTTP/1.1 " + status)
    assert peer.transport.ended


@pytest.mark.parametrize(
    ("raw", "headers", "status", "says"),
    [
        (b"\0\0\0\0\x05ab", {}, "13", "before its message was complete"),
        (b"\0\0\0\0\2\xff\xff", {}, "13", "not a google.protobuf.Int32Value"),
        (b"\0\0\0\0\0", {"grpc__encoding": "br"}, "12", "'br' is not supported"),
        (b"\0\0\0\0\0", {"grpc__timeout": "1x"}, "13", "malformed grpc-timeout"),
        (b"\0\0\0\4\0" + b"x" * 1024, {}, "8", "longer than the limit"),
    ],
)
async def test_bad_requests(raw: bytes, headers: dict[str, str], status: str, says: str, serve: Any) -> None:
    peer = Peer(serve(Double=(UNARY, double), settings=WireSettings(max_receive_message_length=1000)))
    peer.head("Double", **headers)
    peer.raw(raw)
    peer.end()
    trailers = await peer.answered()
    assert trailers["grpc-status"] == status
    assert says in trailers["grpc-message"]
    assert trailers["request_id"] == "made"


@in_virtual_time
async def test_draining_lets_calls_finish_and_ends_the_rest(serve: Any) -> None:
    go = asyncio.Event()

    async def wait(request: Int32Value) -> StringValue:
        await go.wait()
        return StringValue()

    async def hang(request: Int32Value) -> StringValue:
        await asyncio.Event().wait()
        raise AssertionError

    server = serve(Wait=(UNARY, wait), Hang=(UNARY, hang))
    idle, waiting, hanging = Peer(server), Peer(server), Peer(server)
    waiting.call("Wait", Int32Value())
    hanging.call("Hang", Int32Value())
    await asyncio.sleep(0)
    draining = asyncio.create_task(server.drain(quiet_s=0, grace_s=10))
    await turns()
    assert idle.transport.closed
    go.set()
    assert (await waiting.answered())["grpc-status"] == "0"
    assert waiting.transport.closed
    await draining
    ended = await hanging.answered()
    assert (ended["grpc-status"], ended["grpc-message"]) == ("14", "the replica is shutting down")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("in_thread", [False, True])
async def test_an_exit_in_a_handler_is_answered_and_reported_and_the_loop_lives(
    error: BaseException, in_thread: bool, serve: Any
) -> None:
    async def leave(request: Int32Value) -> StringValue:
        raise error

    def leave_in_thread(request: Int32Value) -> StringValue:
        raise error

    server = serve(Leave=(UNARY, leave_in_thread if in_thread else leave))
    exits: list[Any] = []
    server.host.on_exit = lambda call, error: exits.append((call.is_done(), error))
    for _ in range(2):
        peer = Peer(server)
        peer.call("Leave", Int32Value())
        assert (await peer.answered())["grpc-status"] == "13"
        await until(lambda: not server.host.ongoing)
    assert exits == [(True, error)] * 2


@pytest.mark.parametrize("error", [ValueError("a"), RpcError(grpc.StatusCode.NOT_FOUND), asyncio.CancelledError()])
async def test_what_a_failed_handler_awaits_elsewhere_is_cancelled(serve: Any, error: BaseException) -> None:
    async def handler(request: Int32Value) -> StringValue:
        if request.value:
            raise error
        return StringValue()

    server = serve(Get=(UNARY, handler))
    ended: list[Any] = []
    server.host.on_cancel = ended.append
    peer = Peer(server)
    peer.call("Get", Int32Value(value=0))
    await peer.answered()
    assert not ended
    peer.transport.chunks.clear()
    peer.call("Get", Int32Value(value=1))
    await peer.answered()
    assert len(ended) == 1

"""Limits of calls at once, without sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # they have no types

from sdk._replica_protocol import API_KEY_HEADER, TOKEN_HEADER
from sdk._web.protocols import serve_web
from sdk._wire.host import WireSettings
from sdk._wire.traced_call import ServerSpans
from sdk.access import Limit
from tests.support.certificates import Authority
from tests.support.spans import collected
from tests.support.tokens import encode
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Peer, parse_answer, turns, until

EXHAUSTED = "8"
BATCH, OTHER = {API_KEY_HEADER: "batch"}, {API_KEY_HEADER: "other"}


class Room:
    """Handlers of every kind, which wait until the test lets them go."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = threading.Event()

    async def unary(self, request: Int32Value) -> StringValue:
        self.inside += 1
        while not self.go.is_set():
            await asyncio.sleep(0.001)
        return StringValue()

    def thread(self, request: Int32Value) -> StringValue:
        self.inside += 1
        self.go.wait(30)
        return StringValue()

    async def stream(self, request: Int32Value) -> AsyncIterator[StringValue]:
        yield await self.unary(request)

    async def collect(self, requests: AsyncIterator[Int32Value]) -> StringValue:
        return await self.unary(Int32Value())

    async def chat(self, requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
        yield await self.unary(Int32Value())


KINDS = {"unary": UNARY, "thread": UNARY, "stream": SERVER, "collect": CLIENT, "chat": BIDI}


def claims(**values: str) -> dict[str, str]:
    return {TOKEN_HEADER: encode(json.dumps(values).encode())}


def a_server(serve: Any, room: Room, *limits: Limit, **settings: Any) -> Any:
    handlers = {name: (kind, getattr(room, name)) for name, kind in KINDS.items()}
    return serve(settings=WireSettings(limits=limits, **settings), **handlers)


def begin(server: Any, method: str = "unary", **headers: str) -> Peer:
    peer = Peer(server)
    peer.call(method, Int32Value(), **headers)
    return peer


async def refusal(server: Any, method: str = "unary", **headers: str) -> dict[str, str]:
    """Return the trailers of a call that is refused at once."""
    peer = begin(server, method, **headers)
    trailers = dict(parse_answer(peer.transport.written).trailers)  # it is there before anything is awaited
    assert trailers["grpc-status"] == EXHAUSTED
    await turns()
    return trailers


async def end(room: Room, *peers: Peer) -> None:
    room.go.set()
    for peer in peers:
        assert (await peer.answered())["grpc-status"] == "0"
    await turns()


@pytest.mark.parametrize("method", KINDS)
async def test_calls_above_the_limit_are_refused_until_one_ends(method: str, serve: Any) -> None:
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=2))
    peers = [begin(server, method) for _ in range(2)]
    await until(lambda: room.inside == 2)
    trailers = await refusal(server, method)
    assert server.host.take_rejected() == {(f"/t.T/{method}", int(EXHAUSTED), "limit"): 1}
    assert trailers["request_id"] == "made"
    assert (trailers["x-ratelimit-limit"], trailers["x-ratelimit-remaining"]) == ("2", "0")
    assert "limit of calls at once from all clients is 2" in trailers["grpc-message"]
    packed = base64.b64decode(trailers["grpc-status-details-bin"] + "==")
    (detail,) = status_pb2.Status.FromString(packed).details
    info = error_details_pb2.RetryInfo()
    assert detail.Unpack(info)
    assert info.retry_delay.seconds == 1
    await end(room, *peers)
    await until(lambda: not server.host.ongoing)
    await end(room, begin(server, method))


async def test_each_client_has_its_own_count(serve: Any) -> None:
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=1, per_identity=True))
    certificate = Authority("a").sign("x").certificate.decode().replace("\n", "%0A")
    proven = {"x-forwarded-proto": "https", "x-forwarded-client-cert": f'Cert="{certificate}"'}
    ann = claims(iss="i", sub="ann")
    clients = [BATCH, OTHER, ann, claims(iss="i", sub="bob"), claims(iss="j", sub="ann"), proven]
    peers = [begin(server, **client) for client in clients]
    await until(lambda: room.inside == len(clients))
    for client in (*clients, claims(iss="i", sub="ann", jti="another token"), {**BATCH, **claims(iss="i", sub="new")}):
        trailers = await refusal(server, **client)
        assert "from this client" in trailers["grpc-message"]
    # Nobody knows whose these are.
    peers += [begin(server), begin(server), begin(server, **claims(iss="i")), begin(server, **claims(iss="i"))]
    await until(lambda: room.inside == len(clients) + 4)
    await end(room, *peers)
    assert server.host.make_call is not None
    counts = server._open_calls._counts
    assert [dict(each) for each in counts.values()] == [{}], "clients that are gone leave nothing"


async def test_a_limit_of_some_methods(serve: Any) -> None:
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=1, methods=("t.T/unary", "t.T/chat")))
    peers = [begin(server, "unary"), begin(server, "stream"), begin(server, "stream")]
    await until(lambda: room.inside == 3)
    message = (await refusal(server, "chat"))["grpc-message"]
    assert "calls of t.T/unary, t.T/chat at once from all clients is 1" in message
    await end(room, *peers)
    server = a_server(serve, room := Room(), Limit(calls_at_once=1, methods=("t.T",)), Limit(calls_at_once=9))
    peers = [begin(server, "unary")]
    await until(lambda: room.inside == 1)
    await refusal(server, "stream")
    await end(room, *peers)
    assert {limit.calls_at_once: dict(count) for limit, count in server._open_calls._counts.items()} == {1: {}, 9: {}}


async def test_a_client_that_sends_slowly_is_counted_from_its_first_byte(serve: Any) -> None:
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=1))
    slow = Peer(server)
    slow.head("unary")
    await refusal(server)
    slow.send(Int32Value())
    slow.end()
    await end(room, slow)


async def test_a_thread_that_runs_on_after_its_call_is_counted(serve: Any) -> None:
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=1))
    cancelled = begin(server, "thread")
    await until(lambda: room.inside == 1)
    cancelled.connection.connection_lost(None)
    await turns()
    await refusal(server, "thread")
    room.go.set()
    await until(lambda: not server.host.ongoing)
    await end(room, begin(server, "thread"))


async def test_a_call_that_waits_for_a_handler_is_counted(serve: Any) -> None:
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=2), max_ongoing_requests=1)
    running, waiting = begin(server), begin(server)
    await until(lambda: room.inside == 1)
    assert server.host.count_queued() == 1
    await refusal(server)
    waiting.connection.connection_lost(None)
    third = begin(server)
    await end(room, running, third)


async def test_a_call_of_a_handler_is_not_counted(serve: Any) -> None:
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=1, per_identity=True))
    outer = begin(server, **BATCH)
    inner = [Peer(server) for _ in range(3)]
    for peer in inner:  # as sdk/_channel/request.py writes it
        lines = ["POST /t.T/unary HTTP/1.1", "host: replica", "content-type: application/grpc", "request_id: 1"]
        lines += [f"{API_KEY_HEADER}: batch", "transfer-encoding: chunked", "", ""]
        peer.connection.data_received("\r\n".join(lines).encode())
        peer.send(Int32Value())
        peer.end()
    await until(lambda: room.inside == 4)
    await end(room, outer, *inner)


async def test_a_change_of_the_limits_keeps_the_count_of_those_that_stay(serve: Any) -> None:
    room = Room()
    kept = Limit(calls_at_once=1, per_identity=True)
    server = a_server(serve, room, kept)
    settings = server.host.settings
    peers = [begin(server, **BATCH)]
    await until(lambda: room.inside == 1)
    server.reconfigure(replace(settings, limits=(Limit(calls_at_once=2), kept)))
    await refusal(server, **BATCH)
    peers += [begin(server), begin(server)]
    assert "from all clients" in (await refusal(server))["grpc-message"]
    server.reconfigure(replace(settings, limits=()))
    assert server.host.make_call is None, "a call pays for nothing"
    peers.append(begin(server, **BATCH))
    await until(lambda: room.inside == 4)
    server.reconfigure(settings)
    await end(room, *peers)
    await end(room, begin(server, **BATCH))


async def test_a_call_with_too_much_metadata_is_not_counted(serve: Any) -> None:
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=1), max_metadata_bytes=1024)
    too_long = begin(server, more="x" * 2000)
    assert "metadata" in too_long.trailers()["grpc-message"]
    await end(room, begin(server))


@pytest.mark.parametrize("method", ["unary", "stream"])
@pytest.mark.parametrize("kind", ["application/json", "application/grpc-web+proto", "application/connect+json"])
async def test_calls_of_other_protocols_are_counted(kind: str, method: str, serve: Any) -> None:
    if (kind, method) == ("application/connect+json", "unary"):
        method = "chat"  # a unary call of Connect is that of JSON
    room = Room()
    server = a_server(serve, room, Limit(calls_at_once=1))
    serve_web(server)
    first = begin(server, method)
    await until(lambda: room.inside == 1)
    second = Peer(server)
    second.head(method, content_type=kind)
    answer = second.transport.written
    assert b"limit of calls at once" in answer.replace(b"%20", b" ")
    if kind == "application/json":
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nx-ratelimit-remaining: 0\r\n" in answer
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["code"] == "resource_exhausted"
        assert body["details"][0]["type"] == "google.rpc.RetryInfo"
    await end(room, first)
    await end(room, begin(server, method))


async def test_calls_with_a_span_are_counted(serve: Any) -> None:
    room = Room()
    with collected() as spans:
        server = a_server(serve, room, Limit(calls_at_once=1))
        serve_web(server)
        server.host.spans = ServerSpans(spans.tracing)
        first = begin(server)
        await until(lambda: room.inside == 1)
        await refusal(server)
        web = Peer(server)
        web.head("unary", content_type="application/json")
        assert web.transport.written.startswith(b"HTTP/1.1 429 ")
        await end(room, first)
        assert "traceresponse" in dict(parse_answer(first.transport.written).head)
        server.host.spans = None
        await end(room, begin(server))
        found = [span.attributes["rpc.status_code"] for span in spans.wait(3)]
    assert found == ["RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", "OK"]

"""The gRPC context: all methods of the contexts of grpc.aio, grpc and Ray Serve, and their effects."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from ray.serve.grpc_util import RayServegRPCContext

from sdk.context import ServicerContext
from sdk.errors import RpcError
from tests.support.certificates import Authority
from tests.support.wire_rig import SERVER, UNARY, Peer, ask

THEIRS = [grpc.aio.ServicerContext, grpc.ServicerContext, RayServegRPCContext]
METHODS = [
    pytest.param(cls, name, id=f"{cls.__module__}.{name}")
    for cls in THEIRS
    for name, _ in inspect.getmembers(cls, inspect.isfunction)
    if not name.startswith("_")
]
OK = StringValue(value="fine")
SAN = "x509_subject_alternative_name"
_PEM = Authority("tests").sign("ann", dns=("a.org",)).certificate
CERTIFICATE = f'Hash=ab12;Cert="{quote(_PEM, safe="")}"'


def test_there_are_methods_to_compare() -> None:
    assert {parameter.values[1] for parameter in METHODS} >= {"abort", "add_callback", "read", "cancel", "request_id"}
    assert all(sum(parameter.values[0] is cls for parameter in METHODS) > 15 for cls in THEIRS)


@pytest.mark.parametrize(("theirs", "name"), METHODS)
def test_it_has_each_method_with_a_signature_that_fits(theirs: Any, name: str) -> None:
    expected = list(inspect.signature(getattr(theirs, name)).parameters.values())
    ours = list(inspect.signature(getattr(ServicerContext, name)).parameters.values())
    assert [parameter.name for parameter in ours[: len(expected)]] == [parameter.name for parameter in expected]
    for mine, their in zip(ours, expected, strict=False):
        assert mine.kind is their.kind
        assert their.default is inspect.Parameter.empty or mine.default is not inspect.Parameter.empty
    assert all(parameter.default is not inspect.Parameter.empty for parameter in ours[len(expected) :])
    assert not getattr(getattr(ServicerContext, name), "__isabstractmethod__", False)


async def test_the_request_can_be_read() -> None:
    def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        assert grpc_context.request_id() == "r"
        assert grpc_context.application() == "app"
        assert grpc_context.multiplexed_model_id() == "m"
        assert grpc_context.traceparent() == "00-1-2-01"
        assert grpc_context.tracestate() == "a=b"
        assert ("k", "v") in grpc_context.invocation_metadata()
        assert ("k-bin", b"\0\1") in grpc_context.invocation_metadata()
        assert 3000 < grpc_context.time_remaining() <= 3600
        return OK

    headers = {"request_id": "r", "application": "app", "multiplexed_model_id": "m", "k": "v", "k__bin": "AAE"}
    answer = await ask(handler, **headers, traceparent="00-1-2-01", tracestate="a=b", grpc__timeout="1H")
    assert ("grpc-status", "0") in answer.trailers


@pytest.mark.parametrize(
    ("headers", "key", "identities"),
    [
        ({}, None, None),
        ({"x__forwarded__proto": "https"}, None, None),
        ({"x__forwarded__proto": "https", "x__forwarded__client__cert": CERTIFICATE}, SAN, [b"a.org"]),
        ({"x__forwarded__proto": "http", "x__forwarded__client__cert": CERTIFICATE}, None, None),
    ],
)
async def test_the_peer(headers: dict[str, str], key: str | None, identities: Any) -> None:
    def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        assert grpc_context.peer() == "ipv4:10.0.0.1:5000"
        assert grpc_context.peer_identity_key() == key
        names = grpc_context.peer_identities()
        assert (names and list(names)) == identities
        assert ("transport_security_type" in grpc_context.auth_context()) is ("https" in headers.values())
        assert grpc_context.invocation_metadata() == ()
        return OK

    answer = await ask(handler, **headers, x__forwarded__for="10.0.0.1:5000")
    assert ("grpc-status", "0") in answer.trailers


async def test_absent_parts_of_the_request_are_empty() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        assert grpc_context.request_id() == "made"
        for name in ("application", "multiplexed_model_id", "traceparent", "tracestate", "time_remaining"):
            assert getattr(grpc_context, name)() is None
        assert grpc_context.invocation_metadata() == ()
        assert (grpc_context.code(), grpc_context.details(), grpc_context.trailing_metadata()) == (None, "", ())
        return OK

    assert ("grpc-status", "0") in (await ask(handler)).trailers


def set_everything(context: ServicerContext) -> None:
    context.send_initial_metadata(grpc.aio.Metadata(("early", "1"), ("early", "2")))
    context.set_code(grpc.StatusCode.OUT_OF_RANGE)
    context.set_details("50 %")
    context.set_trailing_metadata((("k", "v"), ("k", "w"), ("b-bin", b"\xff"), ("request_id", "another")))
    assert context.code() is grpc.StatusCode.OUT_OF_RANGE
    assert context.details() == "50 %"
    assert list(context.trailing_metadata()) == [("k", "v"), ("k", "w"), ("b-bin", b"\xff")]


async def sets_async(request: Any, grpc_context: ServicerContext) -> StringValue:
    set_everything(grpc_context)
    return OK


def sets_sync(request: Any, grpc_context: ServicerContext) -> StringValue:
    set_everything(grpc_context)
    return OK


async def sets_async_stream(request: Any, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
    set_everything(grpc_context)
    yield OK


def sets_sync_stream(request: Any, grpc_context: ServicerContext) -> Iterator[StringValue]:
    set_everything(grpc_context)
    yield OK


@pytest.mark.parametrize(
    ("cardinality", "handler"),
    [(UNARY, sets_async), (UNARY, sets_sync), (SERVER, sets_async_stream), (SERVER, sets_sync_stream)],
)
async def test_the_handlers_settings_are_sent(cardinality: Any, handler: Any) -> None:
    answer = await ask(handler, cardinality)
    assert [pair for pair in answer.head if pair[0] == "early"] == [("early", "1"), ("early", "2")]
    assert len(answer.messages) == 1
    assert answer.trailers == [
        ("grpc-status", "11"),
        ("grpc-message", "50 %25"),
        ("k", "v"),
        ("k", "w"),
        ("b-bin", "/w"),
        ("request_id", "made"),
    ]


@pytest.mark.parametrize("code", [grpc.StatusCode.DATA_LOSS, 15])
async def test_a_code_may_be_given_as_a_number(code: Any) -> None:
    async def sets(request: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.set_code(code)
        return OK

    def aborts(request: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.abort(code)

    assert dict((await ask(sets)).trailers)["grpc-status"] == "15"
    assert dict((await ask(aborts)).trailers)["grpc-status"] == "15"


@pytest.mark.parametrize("code", [17, -1, "OK", None])
async def test_there_is_no_other_code(code: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        for method in (grpc_context.set_code, grpc_context.abort):
            with pytest.raises(ValueError, match=r"unknown gRPC status code .*; use a member of grpc\.StatusCode"):
                method(code)
        return OK

    assert dict((await ask(handler)).trailers)["grpc-status"] == "0"


async def aborts_async(request: Any, grpc_context: ServicerContext) -> StringValue:
    grpc_context.set_trailing_metadata([("dropped", "yes")])
    await grpc_context.abort(grpc.StatusCode.NOT_FOUND, "no user", [("kept", "yes")])
    raise AssertionError


def aborts_sync(request: Any, grpc_context: ServicerContext) -> StringValue:
    grpc_context.set_trailing_metadata([("dropped", "yes")])
    grpc_context.abort(grpc.StatusCode.NOT_FOUND, "no user", [("kept", "yes")])


def aborts_as_in_grpc_aio(request: Any, grpc_context: ServicerContext) -> StringValue:
    with pytest.raises(grpc.aio.AbortError):
        grpc_context.abort_with_status(Status())
    raise ValueError("what is raised behind an abort does not matter")


class Status(grpc.Status):
    code = grpc.StatusCode.NOT_FOUND
    details = "no user"
    trailing_metadata = (("kept", "yes"),)


async def aborts_stream(request: Any, grpc_context: ServicerContext) -> AsyncIterator[StringValue]:
    yield OK
    await grpc_context.abort_with_status(Status())


def aborts_sync_stream(request: Any, grpc_context: ServicerContext) -> Iterator[StringValue]:
    yield OK
    grpc_context.abort_with_status(Status())


@pytest.mark.parametrize(
    ("cardinality", "handler"),
    [
        (UNARY, aborts_async),
        (UNARY, aborts_sync),
        (UNARY, aborts_as_in_grpc_aio),
        (SERVER, aborts_stream),
        (SERVER, aborts_sync_stream),
    ],
)
async def test_abort(cardinality: Any, handler: Any) -> None:
    answer = await ask(handler, cardinality)
    assert len(answer.messages) == (cardinality is SERVER)
    assert answer.trailers == [
        ("grpc-status", "5"),
        ("grpc-message", "no user"),
        ("kept", "yes"),
        ("request_id", "made"),
    ]


async def test_abort_with_ok_is_unknown_as_in_grpcio() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        await grpc_context.abort(grpc.StatusCode.OK, "ignored")
        raise AssertionError

    assert (await ask(handler)).trailers == [("grpc-status", "2"), ("request_id", "made")]


@pytest.mark.parametrize(
    ("key", "value", "sent"),
    [("grpc-retry-pushback-ms", "-1", "-1"), ("grpc-server-stats-bin", b"\0\0", "AAA")],
)
async def test_a_handler_may_set_what_grpc_lets_servers_send(key: str, value: str | bytes, sent: str) -> None:
    async def sets(request: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.set_trailing_metadata([(key, value)])
        await grpc_context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        raise AssertionError

    async def raises(request: Any) -> StringValue:
        raise RpcError(grpc.StatusCode.UNAVAILABLE, "busy", [(key, value)])

    for handler in (sets, raises):
        trailers = [("grpc-status", "14"), ("grpc-message", "busy"), (key, sent), ("request_id", "made")]
        assert (await ask(handler)).trailers == trailers


RESERVED = [
    (":path", "/x", "is not allowed"),
    ("Upper", "x", "is not allowed"),
    ("grpc-status", "0", "is reserved for gRPC"),
    ("grpc-encoding", "gzip", "is reserved for gRPC"),
    ("grpc-anything-new", "x", "is reserved for gRPC"),
    ("grpc-server-stats-bin", "text", "must be bytes"),
    *(
        (key, "x", "is reserved for HTTP")
        for key in ("content-type", "te", "connection", "transfer-encoding", "trailer", "content-length", "upgrade")
    ),
    ("x-envoy-immediate-health-check-fail", "1", "is reserved for the proxy"),
    ("k-bin", "text", "must be bytes"),
    ("k", b"bytes", "must be printable ASCII"),
    ("k", 1, "must be printable ASCII"),
]


@pytest.mark.parametrize(("key", "value", "says"), RESERVED)
async def test_reserved_metadata_is_rejected(key: str, value: Any, says: str) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        for method in (grpc_context.set_trailing_metadata, grpc_context.send_initial_metadata):
            with pytest.raises(ValueError, match=rf"^metadata (key|value of) '{key}' {says}"):
                method([(key, value)])
        with pytest.raises(ValueError, match=says):
            grpc_context.abort(grpc.StatusCode.ABORTED, "", [(key, value)])
        return OK

    assert (await ask(handler)).trailers == [("grpc-status", "0"), ("request_id", "made")]


@pytest.mark.parametrize("metadata", [{"key": "value"}, "text", [("a", "b", "c")], 7])
async def test_metadata_without_pairs_is_rejected(metadata: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        with pytest.raises(TypeError, match=r"metadata must be \(key, value\) pairs"):
            grpc_context.set_trailing_metadata(metadata)
        return OK

    assert dict((await ask(handler)).trailers)["grpc-status"] == "0"


@pytest.mark.parametrize("nothing", [None, (), []])
async def test_no_metadata_may_be_given_as_none(nothing: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.set_trailing_metadata(nothing)
        await grpc_context.send_initial_metadata(nothing)
        return OK

    assert (await ask(handler)).trailers == [("grpc-status", "0"), ("request_id", "made")]


def sends_twice_sync(request: Any, grpc_context: ServicerContext) -> StringValue:
    grpc_context.send_initial_metadata([("a", "1")])
    grpc_context.send_initial_metadata([("a", "2")])
    raise AssertionError


async def sends_twice_async(request: Any, grpc_context: ServicerContext) -> StringValue:
    await grpc_context.send_initial_metadata([("a", "1")])
    await grpc_context.send_initial_metadata([("a", "2")])
    raise AssertionError


@pytest.mark.parametrize("handler", [sends_twice_sync, sends_twice_async])
async def test_initial_metadata_is_sent_once(handler: Any) -> None:
    answer = await ask(handler)
    assert ("a", "1") in answer.head
    assert "the initial metadata was sent already" in dict(answer.trailers)["grpc-message"]


async def test_initial_metadata_of_a_thread_does_not_race_with_the_end_of_its_call(
    monkeypatch: pytest.MonkeyPatch, serve: Any
) -> None:
    go, queued = threading.Event(), threading.Event()

    def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        go.wait(10)
        grpc_context.send_initial_metadata([("a", "1")])
        return OK

    loop = asyncio.get_running_loop()
    call_soon_threadsafe = loop.call_soon_threadsafe

    def spy(callback: Any, *args: Any, **kwargs: Any) -> Any:
        handle = call_soon_threadsafe(callback, *args, **kwargs)
        queued.set()
        return handle

    peer = Peer(serve(Get=(UNARY, handler)))
    peer.call("Get", Int32Value())
    await asyncio.sleep(0)
    monkeypatch.setattr(loop, "call_soon_threadsafe", spy)
    go.set()
    assert queued.wait(10)  # the loop is blocked: the thread's request waits while the call ends
    peer.connection.end(14, "the end")
    answer = await peer.answer()
    assert ("content-type", "application/grpc") in answer.head
    assert answer.trailers[:2] == [("grpc-status", "14"), ("grpc-message", "the end")]


async def test_initial_metadata_of_a_thread_after_the_deadline_is_dropped(serve: Any) -> None:
    began, late = threading.Event(), threading.Event()
    done = threading.Event()

    def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        began.set()
        late.wait(10)
        grpc_context.send_initial_metadata([("a", "1")])
        done.set()
        return OK

    peer = Peer(serve(Get=(UNARY, handler)))
    peer.call("Get", Int32Value(), grpc__timeout="50m")
    await asyncio.sleep(0)
    assert began.wait(10)  # the loop is blocked: the deadline does not end the call before
    answer = await peer.answer()
    assert answer.trailers[0] == ("grpc-status", "4")
    before = peer.transport.written
    late.set()
    assert await asyncio.to_thread(done.wait, 10)
    assert peer.transport.written == before

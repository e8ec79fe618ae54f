"""The gRPC context: every method of grpc.aio's, of grpc's and of Ray Serve's, and what each does."""

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
from certificates import Authority
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from ray.serve.grpc_util import RayServegRPCContext
from wire_rig import BIDI, CLIENT, SERVER, UNARY, Answer, Peer, in_loop

from sdk import current_context
from sdk.context import ServicerContext
from sdk.wire.server import WireSettings

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


def ask(handler: Any, cardinality: Any = UNARY, **headers: str) -> Answer:
    """Return what one call of a handler answers."""
    answers = []

    async def body(serve: Any) -> None:
        peer = Peer(serve(settings=WireSettings(error_details="message"), Get=(cardinality, handler)))
        peer.head("Get", **headers)
        peer.send(Int32Value(value=7))
        peer.end()
        answers.append(await peer.answer())

    in_loop(body)
    return answers[0]


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


def test_what_the_client_sent() -> None:
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
    answer = ask(handler, **headers, traceparent="00-1-2-01", tracestate="a=b", grpc__timeout="1H")
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
def test_the_peer(headers: dict[str, str], key: str | None, identities: Any) -> None:
    def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        assert grpc_context.peer() == "ipv4:10.0.0.1:5000"
        assert grpc_context.peer_identity_key() == key
        told = grpc_context.peer_identities()
        assert (told and list(told)) == identities
        assert ("transport_security_type" in grpc_context.auth_context()) is ("https" in headers.values())
        assert grpc_context.invocation_metadata() == ()
        return OK

    answer = ask(handler, **headers, x__forwarded__for="10.0.0.1:5000")
    assert ("grpc-status", "0") in answer.trailers


def test_what_the_client_did_not_send() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        assert grpc_context.request_id() == "made"
        for name in ("application", "multiplexed_model_id", "traceparent", "tracestate", "time_remaining"):
            assert getattr(grpc_context, name)() is None
        assert grpc_context.invocation_metadata() == ()
        assert (grpc_context.code(), grpc_context.details(), grpc_context.trailing_metadata()) == (None, "", ())
        return OK

    assert ("grpc-status", "0") in ask(handler).trailers


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
def test_what_a_handler_sets_is_sent(cardinality: Any, handler: Any) -> None:
    answer = ask(handler, cardinality)
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
def test_a_code_may_be_given_as_a_number(code: Any) -> None:
    async def sets(request: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.set_code(code)
        return OK

    def aborts(request: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.abort(code)

    assert dict(ask(sets).trailers)["grpc-status"] == "15"
    assert dict(ask(aborts).trailers)["grpc-status"] == "15"


@pytest.mark.parametrize("code", [17, -1, "OK", None])
def test_there_is_no_other_code(code: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        for method in (grpc_context.set_code, grpc_context.abort):
            with pytest.raises(ValueError, match=r"no gRPC status code .*; give a member of grpc\.StatusCode"):
                method(code)
        return OK

    assert dict(ask(handler).trailers)["grpc-status"] == "0"


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
def test_abort(cardinality: Any, handler: Any) -> None:
    answer = ask(handler, cardinality)
    assert len(answer.messages) == (cardinality is SERVER)
    assert answer.trailers == [
        ("grpc-status", "5"),
        ("grpc-message", "no user"),
        ("kept", "yes"),
        ("request_id", "made"),
    ]


def test_abort_with_ok_is_unknown_as_grpcio_has_it() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        await grpc_context.abort(grpc.StatusCode.OK, "ignored")
        raise AssertionError

    assert ask(handler).trailers == [("grpc-status", "2"), ("request_id", "made")]


RESERVED = [
    (":path", "/x", "is not allowed"),
    ("Upper", "x", "is not allowed"),
    ("grpc-status", "0", "is reserved for gRPC"),
    ("grpc-encoding", "gzip", "is reserved for gRPC"),
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
def test_metadata_that_is_not_the_handlers_is_refused(key: str, value: Any, says: str) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        for method in (grpc_context.set_trailing_metadata, grpc_context.send_initial_metadata):
            with pytest.raises(ValueError, match=rf"^metadata (key|value of) '{key}' {says}"):
                method([(key, value)])
        with pytest.raises(ValueError, match=says):
            grpc_context.abort(grpc.StatusCode.ABORTED, "", [(key, value)])
        return OK

    assert ask(handler).trailers == [("grpc-status", "0"), ("request_id", "made")]


@pytest.mark.parametrize("metadata", [{"key": "value"}, "text", [("a", "b", "c")], 7])
def test_metadata_that_is_no_pairs_is_refused(metadata: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        with pytest.raises(TypeError, match=r"metadata must be \(key, value\) pairs"):
            grpc_context.set_trailing_metadata(metadata)
        return OK

    assert dict(ask(handler).trailers)["grpc-status"] == "0"


@pytest.mark.parametrize("nothing", [None, (), []])
def test_no_metadata_may_be_given_as_none(nothing: Any) -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.set_trailing_metadata(nothing)
        await grpc_context.send_initial_metadata(nothing)
        return OK

    assert ask(handler).trailers == [("grpc-status", "0"), ("request_id", "made")]


def sends_twice_sync(request: Any, grpc_context: ServicerContext) -> StringValue:
    grpc_context.send_initial_metadata([("a", "1")])
    grpc_context.send_initial_metadata([("a", "2")])
    raise AssertionError


async def sends_twice_async(request: Any, grpc_context: ServicerContext) -> StringValue:
    await grpc_context.send_initial_metadata([("a", "1")])
    await grpc_context.send_initial_metadata([("a", "2")])
    raise AssertionError


@pytest.mark.parametrize("handler", [sends_twice_sync, sends_twice_async])
def test_initial_metadata_is_sent_once(handler: Any) -> None:
    answer = ask(handler)
    assert ("a", "1") in answer.head
    assert "the initial metadata was sent already" in dict(answer.trailers)["grpc-message"]


def test_a_thread_that_sends_initial_metadata_after_the_deadline_spoils_nothing() -> None:
    late = threading.Event()
    done = threading.Event()

    def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        late.wait(10)
        grpc_context.send_initial_metadata([("a", "1")])
        done.set()
        return OK

    async def body(serve: Any) -> None:
        peer = Peer(serve(Get=(UNARY, handler)))
        peer.call("Get", Int32Value(), grpc__timeout="1m")
        answer = await peer.answer()
        assert answer.trailers[0] == ("grpc-status", "4")
        before = peer.transport.written
        late.set()
        assert await asyncio.to_thread(done.wait, 10)
        assert peer.transport.written == before

    in_loop(body)


async def writes(request: Any, grpc_context: ServicerContext) -> None:
    for text in ("a", "b"):
        await grpc_context.write(StringValue(value=text))


async def reads_and_writes(requests: Any, grpc_context: ServicerContext) -> None:
    while (message := await grpc_context.read()) is not grpc.aio.EOF:
        await grpc_context.write(StringValue(value=str(message.value)))


async def reads(requests: Any, grpc_context: ServicerContext) -> StringValue:
    first = await grpc_context.read()
    assert await grpc_context.read() is grpc.aio.EOF
    return StringValue(value=str(first.value))


async def reads_the_one_message(request: Int32Value, grpc_context: ServicerContext) -> StringValue:
    assert await grpc_context.read() is grpc.aio.EOF
    return StringValue(value=str(request.value))


@pytest.mark.parametrize(
    ("cardinality", "handler", "sent"),
    [
        (SERVER, writes, ["a", "b"]),
        (BIDI, reads_and_writes, ["7"]),
        (CLIENT, reads, ["7"]),
        (UNARY, reads_the_one_message, ["7"]),
    ],
)
def test_messages_can_be_read_and_written_through_the_context(cardinality: Any, handler: Any, sent: list[str]) -> None:
    answer = ask(handler, cardinality)
    assert dict(answer.trailers)["grpc-status"] == "0"
    assert [StringValue.FromString(message).value for _, message in answer.messages] == sent


def test_a_coroutine_that_returns_nothing_and_can_not_have_written_is_a_mistake() -> None:
    async def handler(request: Any) -> None:
        return None

    message = dict(ask(handler, SERVER).trailers)["grpc-message"]
    assert message.endswith("returned None; the proto says a stream of google.protobuf.StringValue")


def test_write_is_for_streams() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        await grpc_context.write(OK)
        raise AssertionError

    answer = ask(handler)
    assert "write() is for streams" in dict(answer.trailers)["grpc-message"]
    assert not answer.messages


def test_write_after_the_end_is_an_error() -> None:
    told: list[str] = []

    async def handler(request: Any, grpc_context: ServicerContext) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(asyncio.InvalidStateError, match="after the end of the call"):
                await grpc_context.write(OK)
            told.append("yes")
            raise

    assert dict(ask(handler, SERVER, grpc__timeout="10m").trailers)["grpc-status"] == "4"
    assert told


def test_a_slow_client_stops_writes() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> None:
        for _ in range(10_000):
            await grpc_context.write(OK)

    async def body(serve: Any) -> None:
        peer = Peer(serve(Get=(SERVER, handler)))
        peer.call("Get", Int32Value())
        peer.connection.pause_writing()
        await asyncio.sleep(0.02)
        size = len(peer.transport.written)
        await asyncio.sleep(0.02)
        assert len(peer.transport.written) == size < 1000
        peer.connection.resume_writing()
        assert len((await peer.answer()).messages) == 10_000

    in_loop(body)


async def cancels_async(request: Any, grpc_context: ServicerContext) -> StringValue:
    grpc_context.cancel()
    grpc_context.cancel()
    assert (grpc_context.cancelled(), grpc_context.done(), grpc_context.is_active()) == (True, True, False)
    await asyncio.Event().wait()
    raise AssertionError


def cancels_sync(request: Any, grpc_context: ServicerContext) -> StringValue:
    assert (grpc_context.cancelled(), grpc_context.done(), grpc_context.is_active()) == (False, False, True)
    grpc_context.cancel()
    assert (grpc_context.cancelled(), grpc_context.done(), grpc_context.is_active()) == (True, True, False)
    return OK


@pytest.mark.parametrize("handler", [cancels_async, cancels_sync])
def test_a_handler_can_cancel_its_call(handler: Any) -> None:
    answer = ask(handler)
    assert not answer.messages
    assert answer.trailers == [
        ("grpc-status", "1"),
        ("grpc-message", "the handler cancelled the call"),
        ("request_id", "made"),
    ]


@pytest.mark.parametrize("is_sync", [True, False])
def test_callbacks_at_the_end(is_sync: bool) -> None:
    called: list[tuple[str, int]] = []
    all_called = threading.Event()
    contexts: list[ServicerContext] = []

    def called_back(what: str) -> None:
        assert contexts[0].done()
        called.append((what, threading.get_ident()))
        if len(called) == 2:
            all_called.set()

    def add(context: ServicerContext) -> StringValue:
        contexts.append(context)
        assert context.add_callback(lambda: called_back("plain")) is True
        context.add_done_callback(lambda given: called_back("done" if given is context else "wrong"))
        assert not called
        return OK

    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        return add(grpc_context)

    def sync_handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        return add(grpc_context)

    async def body(serve: Any) -> None:
        peer = Peer(serve(Get=(UNARY, sync_handler if is_sync else handler)))
        peer.call("Get", Int32Value())
        await peer.answered()
        assert await asyncio.to_thread(all_called.wait, 10)
        assert {what for what, _ in called} == {"plain", "done"}
        here = threading.get_ident()
        assert {thread == here for _, thread in called} == {not is_sync}
        assert contexts[0].add_callback(lambda: called_back("late")) is False
        contexts[0].add_done_callback(lambda _: called_back("late, but called"))
        assert [what for what, _ in called[2:]] == ["late, but called"]

    in_loop(body)


def test_a_thread_learns_from_a_callback_that_the_client_is_gone() -> None:
    began, ended = threading.Event(), threading.Event()

    def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        gone = threading.Event()
        assert grpc_context.add_callback(gone.set)
        began.set()
        assert gone.wait(10)
        assert grpc_context.cancelled()
        ended.set()
        return OK

    async def body(serve: Any) -> None:
        # All places are taken by a handler that waits for its callback: it must not need one of them.
        peer = Peer(serve(settings=WireSettings(max_ongoing_requests=1), Get=(UNARY, handler)))
        peer.call("Get", Int32Value())
        assert await asyncio.to_thread(began.wait, 10)
        peer.transport.closed = True
        peer.connection.connection_lost(None)
        assert await asyncio.to_thread(ended.wait, 10)

    in_loop(body)


async def current_async(request: Any) -> StringValue:
    return StringValue(value=current_context().request_id())


def current_sync(request: Any) -> StringValue:
    return StringValue(value=current_context().request_id())


async def current_in_a_task(request: Any) -> StringValue:
    async def inner() -> str:
        await asyncio.sleep(0)
        return current_context().request_id()

    return StringValue(value=await asyncio.create_task(inner()))


async def current_in_a_thread(request: Any) -> StringValue:
    return StringValue(value=await asyncio.to_thread(lambda: current_context().request_id()))


async def current_in_a_stream(request: Any) -> AsyncIterator[StringValue]:
    await asyncio.sleep(0)
    yield StringValue(value=current_context().request_id())


def current_in_a_sync_stream(request: Any) -> Iterator[StringValue]:
    yield StringValue(value=current_context().request_id())


async def current_writes(request: Any) -> None:
    await current_context().write(StringValue(value=current_context().request_id()))


@pytest.mark.parametrize(
    ("cardinality", "handler"),
    [
        (UNARY, current_async),
        (UNARY, current_sync),
        (UNARY, current_in_a_task),
        (UNARY, current_in_a_thread),
        (SERVER, current_in_a_stream),
        (SERVER, current_in_a_sync_stream),
        (SERVER, current_writes),
    ],
)
def test_the_current_context_is_the_calls_own_everywhere(cardinality: Any, handler: Any) -> None:
    async def body(serve: Any) -> None:
        server = serve(Get=(cardinality, handler))
        peers = [Peer(server) for _ in range(5)]
        for number, peer in enumerate(peers):
            peer.call("Get", Int32Value(), request_id=str(number))
        for number, peer in enumerate(peers):
            answer = await peer.answer()
            assert [StringValue.FromString(message).value for _, message in answer.messages] == [str(number)]

    in_loop(body)


def test_the_argument_and_the_current_context_are_the_same() -> None:
    async def handler(request: Any, grpc_context: ServicerContext) -> StringValue:
        assert current_context() is grpc_context
        return OK

    assert dict(ask(handler).trailers)["grpc-status"] == "0"


def test_there_is_no_current_context_outside_a_call() -> None:
    with pytest.raises(RuntimeError, match="no gRPC call runs here"):
        current_context()

"""Spans of a server's calls, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from sdk._wire.host import WireSettings
from sdk._wire.traced_call import ServerSpans
from sdk.errors import RpcError
from tests.support import spans as memory
from tests.support.spans import NOT_SAMPLED, SAMPLED, Spans, collected
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Answer, Peer, serving, until


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collected() as found:
        yield found


async def ask(spans: Spans, handler: Any, cardinality: Any = UNARY, method: str = "Get", **headers: str) -> Answer:
    """Return the response to one call of a handler whose server makes spans."""
    async with serving() as serve:
        server = serve(WireSettings(error_details="message"), Get=(cardinality, handler))
        server.host.spans = ServerSpans(spans.tracing, {"ray.serve.application": "app"}, events="events" in headers)
        headers.pop("events", None)
        peer = Peer(server)
        peer.call(method, Int32Value(value=7), **headers)
        return await peer.answer()


def trace_id() -> str:
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


async def answers(request: Int32Value) -> StringValue:
    return StringValue(value=trace_id())


def answers_in_a_thread(request: Int32Value) -> StringValue:
    return StringValue(value=trace_id())


async def streams(request: Int32Value) -> AsyncIterator[StringValue]:
    for _ in range(2):
        yield StringValue(value=trace_id())


def streams_in_a_thread(request: Int32Value) -> Iterator[StringValue]:
    for _ in range(2):
        yield StringValue(value=trace_id())


async def collects(requests: AsyncIterator[Int32Value]) -> StringValue:
    assert [request.value async for request in requests] == [7]
    return StringValue(value=trace_id())


def chats_in_a_thread(requests: Iterator[Int32Value]) -> Iterator[StringValue]:
    for _ in requests:
        yield StringValue(value=trace_id())


HANDLERS = [
    (UNARY, answers),
    (UNARY, answers_in_a_thread),
    (SERVER, streams),
    (SERVER, streams_in_a_thread),
    (CLIENT, collects),
    (BIDI, chats_in_a_thread),
]


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_a_handler_runs_in_the_span_of_its_call(cardinality: Any, handler: Any, spans: Spans) -> None:
    answer = await ask(spans, handler, cardinality, **SAMPLED, x__forwarded__for="10.0.0.1:5000")
    assert {StringValue.FromString(data).value for _, data in answer.messages} == {"0af7651916cd43dd8448eb211c80319c"}
    span = spans.one()
    assert (span.name, span.kind, span.status.status_code) == ("t.T/Get", SpanKind.SERVER, StatusCode.UNSET)
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.parent.is_remote
    assert dict(span.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": "t.T/Get",
        "rpc.status_code": "OK",
        "server.address": "x",
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 5000,
        "ray.serve.application": "app",
        "ray.serve.request_id": "made",
    }
    assert not span.events


async def test_a_call_without_a_parent_is_a_root(spans: Spans) -> None:
    await ask(spans, answers)
    assert spans.one().parent is None


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_the_response_names_a_trace_that_begins_with_the_call(
    cardinality: Any, handler: Any, spans: Spans
) -> None:
    answer = await ask(spans, handler, cardinality)
    made = spans.one().context
    named = f"00-{made.trace_id:032x}-{made.span_id:016x}-{made.trace_flags:02x}"
    assert dict(answer.head)["traceresponse"] == named
    assert "traceresponse" not in dict((await ask(spans, handler, cardinality, **SAMPLED)).head)


async def test_so_does_an_error(spans: Spans) -> None:
    answer = await ask(spans, aborts)
    assert dict(answer.head)["traceresponse"].split("-")[1] == f"{spans.one().context.trace_id:032x}"
    assert dict(answer.trailers)["grpc-status"] == "5"


async def test_a_trace_that_is_not_sampled_is_not_named() -> None:
    spans = Spans(sampler=ALWAYS_OFF)
    assert "traceresponse" not in dict((await ask(spans, answers)).head)


async def raises(request: Int32Value) -> StringValue:
    raise KeyError("nobody")


async def aborts(request: Int32Value) -> StringValue:
    raise RpcError(grpc.StatusCode.NOT_FOUND, "nobody")


async def is_unavailable(request: Int32Value) -> StringValue:
    raise RpcError(grpc.StatusCode.UNAVAILABLE, "try later")


@pytest.mark.parametrize(
    ("handler", "code", "error", "description", "events"),
    [
        (raises, "INTERNAL", "INTERNAL", "KeyError: 'nobody'", ["exception"]),
        (aborts, "NOT_FOUND", None, None, []),
        (is_unavailable, "UNAVAILABLE", "UNAVAILABLE", "try later", []),
    ],
)
async def test_errors_are_those_of_the_server_only(
    handler: Any, code: str, error: str | None, description: str | None, events: list[str], spans: Spans
) -> None:
    await ask(spans, handler)
    span = spans.one()
    assert span.attributes["rpc.status_code"] == code
    assert span.attributes.get("error.type") == error
    assert (span.status.status_code is StatusCode.ERROR) == (error is not None)
    assert span.status.description == description
    assert [event.name for event in span.events] == events


async def test_an_unknown_method_has_a_bounded_name(spans: Spans) -> None:
    await ask(spans, answers, method="Other")
    span = spans.one()
    assert span.name == "grpc"
    assert span.attributes["rpc.method"] == "_OTHER"
    assert span.attributes["rpc.method_original"] == "t.T/Other"
    assert span.attributes["error.type"] == "UNIMPLEMENTED"


async def test_the_span_of_a_cancelled_stream_ends_with_it(spans: Spans) -> None:
    async def endless(request: Int32Value) -> AsyncIterator[StringValue]:
        yield StringValue(value="first")
        await asyncio.Event().wait()

    async with serving() as serve:
        server = serve(Get=(SERVER, endless))
        server.host.spans = ServerSpans(spans.tracing)
        peer = Peer(server)
        peer.call("Get", Int32Value(value=7))
        await until(lambda: b"first" in peer.transport.written)
        assert not spans.all()
        peer.connection.connection_lost(None)
        span = spans.one()
    assert span.attributes["rpc.status_code"] == "CANCELLED"
    assert span.status.status_code is StatusCode.UNSET


async def test_a_call_that_is_never_admitted_has_a_span(spans: Spans) -> None:
    async def waits(request: Int32Value) -> StringValue:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving() as serve:
        server = serve(WireSettings(max_ongoing_requests=1, max_queued_requests=0), Get=(UNARY, waits))
        server.host.spans = ServerSpans(spans.tracing)
        first, second = Peer(server), Peer(server)
        first.call("Get", Int32Value(value=7))
        second.call("Get", Int32Value(value=7))
        await second.answer()
        span = spans.one()
        first.connection.connection_lost(None)
    assert span.attributes["rpc.status_code"] == "RESOURCE_EXHAUSTED"


async def test_the_deadline_is_an_error_of_the_server(spans: Spans) -> None:
    async def waits(request: Int32Value) -> StringValue:
        await asyncio.Event().wait()
        raise AssertionError

    await ask(spans, waits, grpc__timeout="1m")
    span = spans.one()
    assert (span.attributes["error.type"], span.status.description) == ("DEADLINE_EXCEEDED", "Deadline exceeded.")


async def test_the_handler_of_an_unsampled_call_makes_no_spans(spans: Spans) -> None:
    async def handler(request: Int32Value) -> StringValue:
        with spans.tracer.start_as_current_span("user's"):
            return StringValue(value=trace_id())

    answer = await ask(spans, handler, **NOT_SAMPLED)
    assert StringValue.FromString(answer.messages[0][1]).value == "0af7651916cd43dd8448eb211c80319c"
    assert not spans.all()


async def test_a_sampler_decides_about_roots_and_their_children() -> None:
    async def handler(request: Int32Value) -> StringValue:
        with spans.tracer.start_as_current_span("user's"):
            return StringValue(value="made")

    with collected(sampler=ParentBased(ALWAYS_OFF)) as spans:
        await ask(spans, handler)
        assert not spans.all()
        await ask(spans, handler, **SAMPLED)
    assert [span.name for span in spans.all()] == ["user's", "t.T/Get"]


async def test_baggage_reaches_the_handler(spans: Spans) -> None:
    async def handler(request: Int32Value) -> StringValue:
        return StringValue(value=str(baggage.get_baggage("tenant")))

    answer = await ask(spans, handler, baggage="tenant=blue")
    assert StringValue.FromString(answer.messages[0][1]).value == "blue"


async def test_a_malformed_traceparent_is_ignored(spans: Spans) -> None:
    await ask(spans, answers, traceparent="00-nonsense")
    assert spans.one().parent is None


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_events_for_messages(cardinality: Any, handler: Any, spans: Spans) -> None:
    await ask(spans, handler, cardinality, events="on")
    found = [
        (event.name, event.attributes["rpc.message.type"], event.attributes["rpc.message.id"])
        for event in spans.one().events
    ]
    sent = 2 if cardinality is SERVER else 1
    assert found == [("rpc.message", "RECEIVED", 1), *(("rpc.message", "SENT", n + 1) for n in range(sent))]


async def test_services_of_the_proxy_have_spans_only_for_clients_that_sample() -> None:
    for headers, expected in (({}, []), (NOT_SAMPLED, []), (SAMPLED, ["t.T/Get"])):
        with collected() as spans:
            async with serving() as serve:
                server = serve(Get=(UNARY, answers))
                server.host.spans = ServerSpans(spans.tracing, only_of_clients=True)
                peer = Peer(server)
                peer.call("Get", Int32Value(value=7), **headers)
                await peer.answer()
            assert [span.name for span in spans.all()] == expected


async def test_the_span_covers_the_wait_in_the_queue(spans: Spans) -> None:
    release = asyncio.Event()

    async def waits(request: Int32Value) -> StringValue:
        await release.wait()
        return StringValue(value="made")

    async with serving() as serve:
        server = serve(WireSettings(max_ongoing_requests=1), Get=(UNARY, waits))
        server.host.spans = ServerSpans(spans.tracing)
        first, second = Peer(server), Peer(server)
        first.call("Get", Int32Value(value=1))
        second.call("Get", Int32Value(value=2))
        assert server.host.count_queued() == 1
        release.set()
        await second.answer()
        await first.answer()
    earlier, later = spans.all()
    assert later.start_time < earlier.end_time < later.end_time
    assert memory.label(later) == "server t.T/Get"

"""Interceptors of grpc-interceptor and OpenTelemetry, unchanged."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_interceptor.exception_to_status import AsyncExceptionToStatusInterceptor
from grpc_interceptor.exceptions import NotFound
from grpc_interceptor.server import AsyncServerInterceptor
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import aio_server_interceptor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sdk import current_context
from tests.support.method_kinds import HANDLERS, ask, texts
from tests.support.wire_rig import CLIENT, SERVER, UNARY


class Counting(AsyncServerInterceptor):
    """The example of grpc-interceptor's documentation."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        self.methods.append(method_name)
        response_or_iterator = method(request_or_iterator, context)
        if hasattr(response_or_iterator, "__aiter__"):
            return response_or_iterator
        return await response_or_iterator


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_grpc_interceptor(cardinality: Any, handler: Any) -> None:
    counting = Counting()
    answer = await ask(cardinality, handler, counting, AsyncExceptionToStatusInterceptor())
    assert set(texts(answer)) == {"7 made"}
    assert dict(answer.trailers)["grpc-status"] == "0"
    assert counting.methods == ["/t.T/Get"]


async def not_found(request: Any) -> StringValue:
    raise NotFound("nobody")


async def not_found_stream(request: Any) -> AsyncIterator[StringValue]:
    yield StringValue()
    raise NotFound("nobody")


def not_found_sync(request: Any) -> StringValue:
    raise NotFound("nobody")


@pytest.mark.parametrize(
    ("cardinality", "handler"),
    [(UNARY, not_found), (SERVER, not_found_stream), (CLIENT, not_found_sync), (UNARY, not_found_sync)],
)
async def test_exceptions_of_grpc_interceptor_become_their_status(cardinality: Any, handler: Any) -> None:
    answer = await ask(cardinality, handler, AsyncExceptionToStatusInterceptor())
    assert answer.trailers[:2] == [("grpc-status", "5"), ("grpc-message", "nobody")]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exporter.provider = provider
    yield exporter
    provider.shutdown()


PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_opentelemetry(cardinality: Any, handler: Any, spans: Any) -> None:
    interceptor = aio_server_interceptor(tracer_provider=spans.provider)
    answer = await ask(cardinality, handler, interceptor, **PARENT, x__forwarded__for="10.0.0.1:5000")
    assert set(texts(answer)) == {"7 made"}
    (span,) = spans.get_finished_spans()
    assert span.name == "/t.T/Get"
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.attributes["rpc.service"] == "t.T"
    assert (span.attributes["net.peer.ip"], span.attributes["net.peer.port"]) == ("10.0.0.1", "5000")


async def traced_async(request: Any, grpc_context: Any) -> StringValue:
    return StringValue(value=f"{trace.get_current_span().get_span_context().trace_id:032x}")


def traced_sync(request: Any, grpc_context: Any) -> StringValue:
    return StringValue(value=f"{trace.get_current_span().get_span_context().trace_id:032x}")


@pytest.mark.parametrize("handler", [traced_async, traced_sync])
async def test_a_handler_runs_in_opentelemetrys_span(handler: Any, spans: Any) -> None:
    answer = await ask(UNARY, handler, aio_server_interceptor(tracer_provider=spans.provider), **PARENT)
    assert texts(answer) == ["0af7651916cd43dd8448eb211c80319c"]


async def aborts_async(request: Any, grpc_context: Any) -> StringValue:
    assert grpc_context is current_context()
    await grpc_context.abort(grpc.StatusCode.NOT_FOUND, "nobody")


async def aborts_by_current_context(request: Any) -> StringValue:
    await current_context().abort(grpc.StatusCode.NOT_FOUND, "nobody")


def aborts_sync(request: Any, grpc_context: Any) -> StringValue:
    assert grpc_context is current_context()
    grpc_context.abort(grpc.StatusCode.NOT_FOUND, "nobody")


@pytest.mark.parametrize("handler", [aborts_async, aborts_by_current_context, aborts_sync])
async def test_opentelemetry_sees_an_abort(handler: Any, spans: Any) -> None:
    answer = await ask(UNARY, handler, aio_server_interceptor(tracer_provider=spans.provider))
    assert answer.trailers[:2] == [("grpc-status", "5"), ("grpc-message", "nobody")]
    (span,) = spans.get_finished_spans()
    assert span.attributes["rpc.grpc.status_code"] == 5
    assert {event.name for event in span.events} == {"exception"}


async def aborts_by_number(request: Any, grpc_context: Any) -> StringValue:
    await grpc_context.abort(5, "nobody")


def aborts_by_number_in_a_thread(request: Any, grpc_context: Any) -> StringValue:
    grpc_context.abort(5, details="nobody")


async def sets_a_number(request: Any, grpc_context: Any) -> StringValue:
    grpc_context.set_code(5)
    grpc_context.set_details("nobody")
    return StringValue()


async def aborts_by_number_within_a_stream(request: Any, grpc_context: Any) -> None:
    await grpc_context.write(StringValue())
    await grpc_context.abort(5, "nobody")


@pytest.mark.parametrize(
    ("cardinality", "handler"),
    [
        (UNARY, aborts_by_number),
        (UNARY, aborts_by_number_in_a_thread),
        (UNARY, sets_a_number),
        (SERVER, aborts_by_number_within_a_stream),
    ],
)
async def test_a_handler_may_give_a_status_by_number_under_opentelemetry(
    cardinality: Any, handler: Any, spans: Any
) -> None:
    answer = await ask(cardinality, handler, aio_server_interceptor(tracer_provider=spans.provider))
    assert answer.trailers[:2] == [("grpc-status", "5"), ("grpc-message", "nobody")]
    (span,) = spans.get_finished_spans()
    assert span.attributes["rpc.grpc.status_code"] == 5


@pytest.mark.parametrize("handler_kind", ["async", "sync"])
async def test_a_context_under_opentelemetry_can_be_passed_on(handler_kind: str, spans: Any) -> None:
    passed: list[Any] = []

    async def handler(request: Any, grpc_context: Any) -> StringValue:
        passed.append(pickle.loads(pickle.dumps(grpc_context)))
        return StringValue()

    def handler_sync(request: Any, grpc_context: Any) -> StringValue:
        passed.append(pickle.loads(pickle.dumps(grpc_context)))
        return StringValue()

    interceptor = aio_server_interceptor(tracer_provider=spans.provider)
    await ask(UNARY, handler if handler_kind == "async" else handler_sync, interceptor)
    assert passed[0].request_id() == "made"

"""Spans of calls through typed handles, without Ray Serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle

from sdk._otel import current
from sdk.errors import RpcError
from tests.support.served_handle import deployment, outer_call
from tests.support.spans import Spans, collected

UNARY, DOWN, UP, BOTH = (f"probe.AsyncProbe/{name}" for name in ("Unary", "Down", "Up", "Both"))
GIVEN = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


class Callee(AsyncProbeBase):
    def __init__(self) -> None:
        self.seen: list[list[tuple[str, str]]] = []

    async def Unary(self, request: Ask, grpc_context: Any) -> Told:
        self.seen.append(grpc_context.invocation_metadata())
        if request.act == "fail":
            raise RpcError(grpc.StatusCode.NOT_FOUND, "no such")
        return Told()

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        yield Told()
        if request.act == "wait":
            await asyncio.Event().wait()

    async def Up(self, requests: AsyncIterator[Ask]) -> Told:
        return Told(number=sum([request.number async for request in requests]))

    async def Both(self, requests: AsyncIterator[Ask]) -> AsyncIterator[Told]:
        async for request in requests:
            yield Told(number=request.number)

    def values(self, key: str) -> list[str]:
        """Return the values of a key in the metadata of the last call."""
        return [value for known, value in self.seen[-1] if known == key]


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collected() as found:
        yield found


@pytest.fixture
def callee() -> Callee:
    return Callee()


@pytest.fixture
async def handle(callee: Callee) -> AsyncIterator[AsyncProbeHandle]:
    async with deployment(callee) as served:
        yield AsyncProbeHandle(served.handle)


async def test_the_calls_of_each_kind(handle: AsyncProbeHandle, spans: Spans) -> None:
    await handle.Unary(Ask())
    assert [_ async for _ in handle.Down(Ask())]
    await handle.Up([Ask(number=1)])
    assert [_ async for _ in handle.Both([Ask()])]
    assert [span.name for span in spans.all()] == [UNARY, DOWN, UP, BOTH]
    for span in spans.all():
        assert dict(span.attributes or {}) == {
            "rpc.system.name": "grpc",
            "rpc.method": span.name,
            "rpc.status_code": "OK",
            "server.address": f"app/{handle._handle.deployment_name}",
        }


async def test_the_metadata_carries_the_span_and_no_other(
    handle: AsyncProbeHandle, callee: Callee, spans: Spans
) -> None:
    with outer_call(GIVEN, ("tracestate", "a=b"), ("user", "you")), spans.tracer.start_as_current_span("handler"):
        await handle.Unary(Ask())
    client = spans.all()[0]
    expected = f"00-{client.context.trace_id:032x}-{client.context.span_id:016x}-01"
    assert [value[:-2] for value in callee.values("traceparent")] == [expected[:-2]]
    assert callee.values("tracestate") == []
    assert callee.values("user") == ["you"]


async def test_without_spans_the_outer_call_s_context_is_passed_on(handle: AsyncProbeHandle, callee: Callee) -> None:
    assert current.tracing is None
    with outer_call(GIVEN, ("tracestate", "a=b")):
        await handle.Unary(Ask())
    assert callee.values("traceparent") == [GIVEN[1]]
    assert callee.values("tracestate") == ["a=b"]


async def test_a_context_in_the_metadata_is_passed_on(handle: AsyncProbeHandle, callee: Callee, spans: Spans) -> None:
    with outer_call(("traceparent", "00-11111111111111111111111111111111-1111111111111111-01")):
        await handle.Unary(Ask(), metadata=[GIVEN])
    assert callee.values("traceparent") == [GIVEN[1]]
    assert not spans.all()


async def test_baggage_is_passed_on(handle: AsyncProbeHandle, callee: Callee, spans: Spans) -> None:
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    await handle.Unary(Ask())
    context.detach(token)
    assert callee.values("baggage") == ["tenant=blue"]


async def test_a_call_that_is_not_sampled_says_so(handle: AsyncProbeHandle, callee: Callee) -> None:
    with collected(sampler=ParentBased(ALWAYS_OFF)) as spans:
        await handle.Unary(Ask())
        assert not spans.all()
    (traceparent,) = callee.values("traceparent")
    assert int(traceparent[-2:], 16) & 1 == 0


async def test_an_error(handle: AsyncProbeHandle, spans: Spans) -> None:
    with pytest.raises(RpcError):
        await handle.Unary(Ask(act="fail"))
    span = spans.one()
    assert (span.attributes["rpc.status_code"], span.attributes["error.type"]) == ("NOT_FOUND", "NOT_FOUND")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no such")


async def test_the_error_of_the_caller_s_iterator(handle: AsyncProbeHandle, spans: Spans) -> None:
    def requests() -> Iterator[Ask]:
        yield Ask()
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await handle.Up(requests())
    assert spans.one().attributes["error.type"] == "builtins.KeyError"


async def test_a_stream_that_is_dropped(handle: AsyncProbeHandle, spans: Spans) -> None:
    stream = handle.Down(Ask(act="wait"))
    await anext(stream)
    assert not spans.all()
    del stream
    assert spans.one().attributes["rpc.status_code"] == "CANCELLED"


async def test_a_call_ends_with_the_outer_one(handle: AsyncProbeHandle, spans: Spans) -> None:
    with outer_call():
        stream = handle.Down(Ask(act="wait"))
        await anext(stream)
    assert spans.one().attributes["rpc.status_code"] == "CANCELLED"


async def test_a_call_from_a_thread(handle: AsyncProbeHandle, spans: Spans) -> None:
    with spans.tracer.start_as_current_span("handler") as handler:
        await asyncio.to_thread(lambda: handle.Unary(Ask()).result())
    assert spans.all()[0].parent == handler.get_span_context()

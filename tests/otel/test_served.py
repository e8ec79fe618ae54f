"""Spans of calls through Envoy to deployments of this process, with those of their clients and handles."""

from __future__ import annotations

import asyncio
import base64
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor, client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.trace import StatusCode
from ray import serve

from sdk import GrpcOptions, RpcError, grpc_deployment
from sdk.access import Access, JwtIssuer, Rule
from sdk.testing import Server
from sdk.testing import serve as serving
from tests.support import desk_server  # generates the code of its proto
from tests.support.spans import Spans, collected
from tests.support.tokens import Issuer
from tests.web.http_client import ask_at

from desk_pb2 import Call, Ticket  # isort: skip
from desk_sdk import AnnexBase, AnnexHandle, DeskBase, DeskClient, DeskSyncClient  # isort: skip

ISSUER = Issuer("https://id.example.org")
ECHO, COUNT, ADD, TALK, REFUSE, RING = (
    f"desk.v1.{name}" for name in ("Desk/Echo", "Desk/Count", "Desk/Add", "Desk/Talk", "Desk/Refuse", "Annex/Ring")
)


@grpc_deployment(partial=True)
class Porter(AnnexBase):
    def Ring(self, request: Call) -> Call:
        with trace.get_tracer("user").start_as_current_span("in a thread"):
            return request


@grpc_deployment(partial=True)
class Hub(DeskBase):
    """Calls another deployment for each ticket, and waits without end where a stream begins with a negative number."""

    def __init__(self, annex: AnnexHandle) -> None:
        self.annex = annex

    async def Echo(self, request: Ticket) -> Ticket:
        answers = await asyncio.gather(self.joined(request.title), self.annex.Ring(Call(text=request.title)))
        return Ticket(title="".join([answers[0], answers[1].text]))

    @serve.batch(max_batch_size=1)
    async def joined(self, titles: list[str]) -> list[str]:
        with trace.get_tracer("user").start_as_current_span("in a batch"):
            return titles

    async def Count(self, request: Ticket) -> AsyncIterator[Ticket]:
        yield Ticket(number=request.number)
        if request.number < 0:
            await asyncio.Event().wait()

    async def Add(self, requests: AsyncIterator[Ticket]) -> Ticket:
        return Ticket(number=sum([request.number async for request in requests]))

    async def Talk(self, requests: AsyncIterator[Ticket]) -> AsyncIterator[Ticket]:
        async for request in requests:
            yield request

    async def Refuse(self, request: Ticket, grpc_context: Any) -> Ticket:
        if request.title == "die":
            grpc_context._call.transport.abort()
            await asyncio.Event().wait()
        raise RpcError(grpc.StatusCode.FAILED_PRECONDITION, "come back")


@grpc_deployment(partial=True, interceptors=[aio_server_interceptor])
class Instrumented(DeskBase):
    async def Echo(self, request: Ticket) -> Ticket:
        return request


@pytest.fixture(scope="module")
def all_spans() -> Iterator[Spans]:
    with collected() as found:
        yield found


@pytest.fixture(scope="module")
def served_before() -> Iterator[None]:
    """A server of the same process that has begun before there were spans."""
    with serving(instrumented=Instrumented.bind()):
        yield


@pytest.fixture(scope="module")
def server(served_before: None, all_spans: Spans, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a file of API keys, which is empty, and a rule by which all may call one service."""
    assert desk_server.Clerk
    keys = tmp_path_factory.mktemp("access") / "keys"
    keys.touch(mode=0o600)
    access = Access(
        issuers=(JwtIssuer(ISSUER.name, ISSUER.jwks),),
        api_keys=str(keys),
        rules=(Rule("anyone", methods=("desk.v1.Desk",)),),
    )
    hub = Hub.bind(AnnexHandle(Porter.bind()))
    with serving({"hub": hub, "instrumented": Instrumented.bind()}, options=GrpcOptions(access=access)) as running:
        yield running


@pytest.fixture
def spans(all_spans: Spans) -> Spans:
    all_spans.clear()
    return all_spans


@pytest.fixture
def client(server: Server) -> Iterator[DeskSyncClient]:
    with DeskSyncClient(server.target, application="hub", timeout=60) as made:
        yield made


def test_a_composed_call_is_one_tree(client: DeskSyncClient, spans: Spans) -> None:
    for _ in range(2):  # the task of the batches has begun in the first call
        spans.clear()
        assert client.Echo(Ticket(title="a")).title == "aa"
        assert spans.edges(6) == [
            ("", f"client {ECHO}"),
            (f"client {RING}", f"server {RING}"),
            (f"client {ECHO}", f"server {ECHO}"),
            (f"server {RING}", "internal in a thread"),
            (f"server {ECHO}", f"client {RING}"),
            (f"server {ECHO}", "internal in a batch"),
        ]
        assert len({span.context.trace_id for span in spans.all()}) == 1


def test_the_caller_s_span_is_the_parent(client: DeskSyncClient, spans: Spans) -> None:
    with spans.tracer.start_as_current_span("program"):
        list(client.Count(Ticket(number=1)))
    assert spans.edges(3) == [
        ("", "internal program"),
        (f"client {COUNT}", f"server {COUNT}"),
        ("internal program", f"client {COUNT}"),
    ]


def by_kind(spans: Spans, count: int = 2) -> dict[str, Any]:
    return {span.kind.name: span for span in spans.wait(count)}


def test_attributes_of_both_ends(server: Server, client: DeskSyncClient, spans: Spans) -> None:
    list(client.Count(Ticket(number=1), request_id="r1"))
    found = by_kind(spans)
    port = int(server.target.rpartition(":")[2])
    common = {"rpc.system.name": "grpc", "rpc.method": COUNT, "rpc.status_code": "OK", "server.port": port}
    assert dict(found["CLIENT"].attributes) == {**common, "server.address": "127.0.0.1"}
    ours = dict(found["SERVER"].attributes)
    assert isinstance(ours.pop("network.peer.port"), int)
    assert ours == {
        **common,
        "server.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "ray.serve.application": "hub",
        "ray.serve.deployment": "Hub",
        "ray.serve.request_id": "r1",
    }


def test_a_blocking_client_s_calls_of_each_kind(client: DeskSyncClient, spans: Spans) -> None:
    client.Echo.with_call(Ticket())
    list(client.Count(Ticket()))
    client.Add(iter([Ticket()]))
    client.Add.with_call(iter([Ticket()]))
    list(client.Talk(iter([Ticket()])))
    ended = [span for span in spans.wait(14) if span.kind.name == "CLIENT" and span.name != RING]
    assert sorted(span.name for span in ended) == [ADD, ADD, COUNT, ECHO, TALK]
    assert {span.attributes["rpc.status_code"] for span in ended} == {"OK"}


async def test_an_async_client_s_calls_of_each_kind(server: Server, spans: Spans) -> None:
    async with DeskClient(server.target, application="hub", timeout=60) as client:
        await client.Echo(Ticket())
        assert [_ async for _ in client.Count(Ticket())]
        await client.Add([Ticket()])
        assert [_ async for _ in client.Talk([Ticket()])]
        call = client.Add()
        await call.write(Ticket())
        await call.done_writing()
        await call
        ended = [span for span in spans.wait(14) if span.kind.name == "CLIENT" and span.name != RING]
    assert sorted(span.name for span in ended) == [ADD, ADD, COUNT, ECHO, TALK]
    assert {span.attributes["rpc.status_code"] for span in ended} == {"OK"}


async def test_an_error_is_one_of_the_client_alone(server: Server, client: DeskSyncClient, spans: Spans) -> None:
    with pytest.raises(grpc.RpcError):
        client.Refuse(Ticket())
    async with DeskClient(server.target, application="hub", timeout=60) as other:
        with pytest.raises(grpc.RpcError):
            await other.Refuse(Ticket())
    for span in spans.wait(4):
        is_client = span.kind.name == "CLIENT"
        assert span.attributes["rpc.status_code"] == "FAILED_PRECONDITION"
        assert span.attributes.get("error.type") == ("FAILED_PRECONDITION" if is_client else None)
        assert span.status.status_code is (StatusCode.ERROR if is_client else StatusCode.UNSET)
        assert span.status.description == ("come back" if is_client else None)


def test_a_stream_that_a_blocking_client_drops(client: DeskSyncClient, spans: Spans) -> None:
    stream = client.Count(Ticket(number=-1))
    next(stream)
    assert not spans.all()
    del stream
    gc.collect()
    found = by_kind(spans)
    assert {span.attributes["rpc.status_code"] for span in found.values()} == {"CANCELLED"}
    assert found["SERVER"].parent.span_id == found["CLIENT"].context.span_id


async def test_a_stream_that_an_async_client_leaves(server: Server, spans: Spans) -> None:
    async with DeskClient(server.target, application="hub", timeout=60) as client:
        async for _ in client.Count(Ticket(number=-1)):
            break
        gc.collect()
        found = await asyncio.to_thread(by_kind, spans)
    assert {span.attributes["rpc.status_code"] for span in found.values()} == {"CANCELLED"}


def test_the_ingress_s_own_answer_has_a_span(client: DeskSyncClient, spans: Spans) -> None:
    with pytest.raises(grpc.RpcError):
        client.Echo(Ticket(), application="none")
    found = by_kind(spans)
    assert found["SERVER"].name == "grpc"
    assert found["SERVER"].attributes["rpc.method_original"] == ECHO
    assert found["SERVER"].attributes["rpc.status_code"] == "NOT_FOUND"
    assert found["SERVER"].parent.span_id == found["CLIENT"].context.span_id


def test_a_server_that_is_not_there(spans: Spans) -> None:
    with DeskSyncClient("127.0.0.1:1", retry=None) as client, pytest.raises(grpc.RpcError):
        client.Echo(Ticket())
    span = spans.one()
    assert span.attributes["error.type"] == "UNAVAILABLE"
    assert (span.attributes["server.address"], span.attributes["server.port"]) == ("127.0.0.1", 1)


def test_a_context_in_the_metadata_is_passed_on(client: DeskSyncClient, spans: Spans) -> None:
    given = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    list(client.Count(Ticket(), metadata=[given]))
    assert spans.edges(1) == [("remote", f"server {COUNT}")]


async def test_opentelemetry_s_instrumentation_of_a_channel_adds_no_second_span(server: Server, spans: Spans) -> None:
    application = [("application", "hub")]
    with grpc.insecure_channel(server.target) as channel:
        instrumented: Any = intercept_channel(channel, client_interceptor())
        list(DeskSyncClient(instrumented, metadata=application).Count(Ticket(), timeout=60))
    async with grpc.aio.insecure_channel(server.target, interceptors=aio_client_interceptors()) as other:
        assert [_ async for _ in DeskClient(other, metadata=application).Count(Ticket(), timeout=60)]
    assert spans.edges(4) == [("", f"client {COUNT}")] * 2 + [(f"client {COUNT}", f"server {COUNT}")] * 2


def test_opentelemetry_s_interceptor_makes_the_spans_of_its_deployment(client: DeskSyncClient, spans: Spans) -> None:
    client.Echo(Ticket(), application="instrumented")
    assert spans.edges(2) == [("", f"client {ECHO}"), (f"client {ECHO}", f"server /{ECHO}")]


def test_a_program_that_makes_no_spans_imports_nothing_of_opentelemetry() -> None:
    code = "import sys, sdk, sdk.client, sdk.handles; sys.exit(any('opentelemetry' in name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_answer_of_envoy_has_a_span(client: DeskSyncClient, spans: Spans) -> None:
    with pytest.raises(grpc.RpcError):
        client.Refuse(Ticket(title="die"), request_id="r2")
    found = {span.attributes["rpc.status_code"]: span for span in spans.wait(3) if span.kind.name == "SERVER"}
    of_envoy = found["UNAVAILABLE"]
    (caller,) = [span for span in spans.all() if span.kind.name == "CLIENT"]
    assert of_envoy.parent.span_id == caller.context.span_id
    assert of_envoy.attributes["rpc.method_original"] == REFUSE
    assert of_envoy.attributes["ray.serve.application"] == "hub"
    assert of_envoy.attributes["ray.serve.request_id"] == "r2"
    assert of_envoy.status.description.startswith("The replica with the call was lost before it answered")
    assert caller.start_time < of_envoy.start_time < of_envoy.end_time < caller.end_time + 10**9


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc-web+proto", "application/json"])
@pytest.mark.parametrize(
    ("headers", "method"),
    [({"x-api-key": "unknown"}, ECHO), ({"authorization": "Bearer a.b.c"}, ECHO), ({}, RING)],
    ids=["an API key", "a token", "no credentials"],
)
def test_a_refusal_of_envoy_has_a_span(
    server: Server, spans: Spans, content_type: str, headers: dict[str, str], method: str
) -> None:
    headers = headers | {"content-type": content_type, "application": "hub", "traceparent": CALLER, "te": "trailers"}
    ask_at(server.target, f"/{method}", EMPTY_FRAME, headers)
    (span,) = spans.wait(1)
    assert (span.name, span.attributes["rpc.method_original"]) == ("grpc", method)
    assert span.attributes["rpc.status_code"] == "UNAUTHENTICATED"
    assert span.attributes["ray.serve.application"] == "hub"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.status.status_code is StatusCode.UNSET, "it is the client's error"


CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EMPTY_FRAME = b"\0\0\0\0\0"


WEB = pytest.mark.parametrize(
    ("content_type", "method", "body"),
    [
        ("application/grpc-web+proto", ECHO, EMPTY_FRAME),
        ("application/grpc-web-text", COUNT, base64.b64encode(EMPTY_FRAME)),
        ("application/json", ECHO, b"{}"),
        ("application/proto", ECHO, b""),
        ("application/connect+json", COUNT, b"\0\0\0\0\2{}"),
        ("application/x-ndjson", COUNT, b"{}"),
    ],
)


@WEB
def test_the_response_names_a_trace_that_begins_with_the_call(
    server: Server, spans: Spans, content_type: str, method: str, body: bytes
) -> None:
    answer = ask_at(server.target, f"/{method}", body, {"content-type": content_type, "application": "hub"})
    found = {span.name: span for span in spans.wait(4 if method == ECHO else 1) if span.kind.name == "SERVER"}
    assert answer.headers["traceresponse"].split("-")[1] == f"{found[method].context.trace_id:032x}"


@WEB
def test_calls_of_other_protocols_have_spans(
    server: Server, spans: Spans, content_type: str, method: str, body: bytes
) -> None:
    headers = {"content-type": content_type, "application": "hub", "traceparent": CALLER}
    answer = ask_at(server.target, f"/{method}", body, headers)
    assert answer.status == 200
    found = {span.name: span for span in spans.wait(4 if method == ECHO else 1) if span.kind.name == "SERVER"}
    span = found[method]
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.attributes["rpc.status_code"] == "OK"
    assert span.attributes["ray.serve.application"] == "hub"
    if method == ECHO:
        assert found[RING].context.trace_id == span.context.trace_id


def test_errors_of_other_protocols_are_seen(server: Server, spans: Spans) -> None:
    headers = {"application": "hub", "traceparent": CALLER, "content-type": "application/json"}
    assert ask_at(server.target, f"/{REFUSE}", b"{}", headers).status == 400
    assert spans.one().attributes["rpc.status_code"] == "FAILED_PRECONDITION"
    spans.clear()
    assert ask_at(server.target, f"/{ECHO}", b"{", headers).status == 400
    span = spans.one()
    assert (span.name, span.attributes["rpc.status_code"]) == (ECHO, "INVALID_ARGUMENT")
    spans.clear()
    assert ask_at(server.target, "/desk.v1.Desk/None", b"{}", headers).status == 404
    span = spans.one()
    assert (span.attributes["rpc.method"], span.status.status_code) == ("_OTHER", StatusCode.ERROR)
    assert span.attributes["rpc.method_original"] == "desk.v1.Desk/None"

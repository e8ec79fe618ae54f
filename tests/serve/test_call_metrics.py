"""Each metric of a replica with the event that moves it, and histograms of many calls with few observations."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from ray import ActorID, serve

from sdk._serve import call_metrics
from sdk._serve.call_metrics import BoundedHistogram
from sdk._serve.internals import add_to_processing_queries, request_context_setter
from sdk._serve.replica_telemetry import LATENCY_BOUNDS_MS
from sdk._web.protocols import serve_web
from sdk._wire import call_rules
from sdk._wire.call_counts import CallCounts, ModelCounts
from sdk._wire.host import WireSettings
from sdk._wire.server import WireServer
from sdk.access import ApiKey, CallRule
from sdk.errors import RpcError
from tests.support import virtual_time
from tests.support.fake_metrics import NODE, Recorded, record_metrics
from tests.support.wire_rig import BIDI, UNARY, Peer, serving, turns

A, B = (("method", "A"),), (("method", "B"),)


def test_below_the_limit_each_call_is_one_observation() -> None:
    histogram = BoundedHistogram([1, 2, 4], limit=10)
    found = Counter(histogram.observations({A: [2, 0, 1, 0], B: [0, 0, 0, 3]}))
    assert found == {(A, 0.5): 2, (A, 3.0): 1, (B, 8): 3}


def test_above_the_limit_all_series_are_thinned_alike() -> None:
    histogram = BoundedHistogram([1, 2], limit=100)
    found = Counter(histogram.observations({A: [9_000, 900, 90], B: [10, 0, 0]}))
    assert found == {(A, 0.5): 90, (A, 1.5): 9}


def test_rare_calls_are_carried_until_they_make_one_observation() -> None:
    histogram = BoundedHistogram([1, 2], limit=100)
    found: Counter[tuple[object, float]] = Counter()
    for _ in range(100):
        found.update(histogram.observations({A: [9_990, 0, 0], B: [0, 0, 10]}))
    assert found == {(A, 0.5): 9_990, (B, 4): 10}


def test_nothing_to_observe() -> None:
    assert list(BoundedHistogram([1, 2]).observations({})) == []
    assert list(BoundedHistogram([1, 2]).observations({A: [0, 0, 0]})) == []


APPLICATION = {"route": "shop", "application": "shop"}
DEPLOYMENT = {**APPLICATION, "deployment": "Till"}
REPLICA = {**DEPLOYMENT, "replica": "r1"}
BANK = ("shop", "Bank", "refused")
TILL = {"application": "shop", "deployment": "Till"}
OF_REPLICA = {key: REPLICA[key] for key in ("application", "deployment", "replica")}


async def unary(request: Int32Value) -> StringValue:
    if request.value:
        raise RpcError(grpc.StatusCode.ABORTED, "no")
    return StringValue(value="x")


async def model(request: Int32Value) -> StringValue:
    serve.get_multiplexed_model_id()
    return StringValue(value=serve.get_multiplexed_model_id())


async def ruled(request: Int32Value) -> StringValue:
    raise AssertionError("its rule allows nobody")


async def both(requests: AsyncIterator[Int32Value]) -> AsyncIterator[StringValue]:
    async for _ in requests:
        yield StringValue(value="x")
        yield StringValue(value="y")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorded]:
    """The metrics after calls of each kind."""
    made = record_metrics(monkeypatch, call_metrics)
    retries = iter([Counter({BANK: 1}), Counter({BANK: 2, (*BANK[:2], "lost"): 1})])
    monkeypatch.setattr(call_metrics, "count_retries", lambda: next(retries))
    waiting = asyncio.Event()

    async def wait(_: Int32Value) -> StringValue:
        await waiting.wait()
        return StringValue()

    async def scenario() -> None:
        async with serving() as make:
            server = make(
                WireSettings(max_ongoing_requests=2, max_queued_requests=1),
                unary=(UNARY, unary),
                model=(UNARY, model),
                both=(BIDI, both),
                wait=(UNARY, wait),
                ruled=(UNARY, ruled),
            )
            route = server.routes[b"/t.T/ruled"]
            route.answer = call_rules.ruled(CallRule((ApiKey("batch"),), ()), route.answer)
            server.host.on_start = request_context_setter("shop")
            metrics = call_metrics.CallMetrics(server, application="shop", deployment="Till", replica="r1")
            for value in (0, 0, 1):
                await called(server, "unary", Int32Value(value=value))
            for name in ("m1", "m1", "m2"):
                await called(server, "model", Int32Value(), multiplexed_model_id=name)
            await called(server, "both", Int32Value(value=5), Int32Value())
            await called(server, "none")
            await called(server, "ruled", Int32Value())
            peers = [Peer(server) for _ in range(4)]
            for peer in peers:
                peer.head("wait")
                peer.send(Int32Value())
                peer.end()
            await turns()
            metrics.export()
            during.update(ongoing=made["serve_num_ongoing_grpc_requests"].value(**NODE))
            during.update(queued=made["sdk_replica_queued_grpc_requests"].value(**OF_REPLICA))
            during.update(of_serve=made["serve_deployment_queued_queries"].value(**TILL))
            current = made["sdk_replica_current_requests"]
            during.update({state: current.value(method="/t.T/wait", state=state) for state in ("ongoing", "queued")})
            waiting.set()
            await turns()
            left = Peer(server)
            waiting.clear()
            left.head("wait")
            left.send(Int32Value())
            left.end()
            await turns()
            left.connection.connection_lost(None)  # its client is gone
            waiting.set()
            await turns()
            inner = Peer(server)
            inner.connection._is_caller = True
            inner.head("unary")
            inner.send(Int32Value())
            inner.end()
            await turns()
            metrics.export()

    during.clear()
    virtual_time.run(scenario())
    return made


JSON, PROTO = "application/json", "application/proto"
WEB, CONNECT = "application/grpc-web+proto", "application/connect+json"


@pytest.mark.parametrize(
    ("content_type", "method", "body", "status"),
    [
        (JSON, "unary", b"0", "OK"),
        (JSON, "unary", b"1", "ABORTED"),
        (JSON, "unary", b"x", "INVALID_ARGUMENT"),
        (JSON, "none", b"0", "UNIMPLEMENTED"),
        (WEB, "unary", b"\0\0\0\0\0", "OK"),
        (WEB, "unary", b"\0\0\0\0\2\x08\1", "ABORTED"),
        (WEB, "none", b"", "UNIMPLEMENTED"),
        (WEB, "unary", b"\0\0\0\0\1\xff", "INTERNAL"),
        (PROTO, "unary", b"", "OK"),
        (PROTO, "unary", b"\x08\1", "ABORTED"),
        (CONNECT, "both", b"\0\0\0\0\1" + b"0", "OK"),
        (CONNECT, "both", b"\0\0\0\0\1" + b"x", "INVALID_ARGUMENT"),
        (CONNECT, "none", b"", "UNIMPLEMENTED"),
        (JSON, "both", b"0\n", "OK"),
        (JSON, "both", b"0\nx\n", "INVALID_ARGUMENT"),
    ],
)
def test_calls_of_other_protocols_have_their_method_and_status(
    monkeypatch: pytest.MonkeyPatch, content_type: str, method: str, body: bytes, status: str
) -> None:
    made = record_metrics(monkeypatch, call_metrics)
    monkeypatch.setattr(call_metrics, "count_retries", Counter)

    async def scenario() -> None:
        async with serving() as make:
            server = make(unary=(UNARY, unary), both=(BIDI, both))
            serve_web(server)
            metrics = call_metrics.CallMetrics(server, application="shop", deployment="Till", replica="r1")
            peer = Peer(server)
            peer.head(method, content_type=content_type)
            peer.raw(body) if body else None
            peer.end()
            await turns()
            metrics.export()

    virtual_time.run(scenario())
    path = "_OTHER" if method == "none" else f"/t.T/{method}"
    labels = {**APPLICATION, "method": path, "status_code": status}
    assert made["serve_num_grpc_requests"].values == {frozenset(labels.items()): 1}
    failed = {**APPLICATION, "method": path, "error_code": status}
    errors = {} if status == "OK" else {frozenset(failed.items()): 1}
    assert made["serve_num_grpc_error_requests"].values == errors
    sent = {"unary": int(status == "OK"), "both": 2 * body.count(b"0"), "none": 0}[method]
    assert made["sdk_replica_messages"].value(method=path, direction="sent") == sent


async def called(server: WireServer, method: str, *messages: Int32Value, **headers: str) -> None:
    peer = Peer(server)
    peer.head(method, **headers)
    for message in messages:
        peer.send(message)
    peer.end()
    await turns()


during: dict[str, float] = {}


@pytest.mark.parametrize(
    ("metric", "labels", "value"),
    [
        ("serve_num_grpc_requests", {**APPLICATION, "method": "/t.T/unary", "status_code": "OK"}, 2),
        ("serve_num_grpc_requests", {**APPLICATION, "method": "/t.T/unary", "status_code": "ABORTED"}, 1),
        ("serve_num_grpc_requests", {**APPLICATION, "method": "_OTHER", "status_code": "UNIMPLEMENTED"}, 1),
        ("serve_num_grpc_requests", {**APPLICATION, "method": "/t.T/wait", "status_code": "CANCELLED"}, 1),
        ("serve_num_grpc_error_requests", {**APPLICATION, "method": "/t.T/unary", "error_code": "ABORTED"}, 1),
        ("serve_num_grpc_error_requests", {**APPLICATION, "method": "/t.T/unary"}, 1),
        ("serve_grpc_request_latency_ms", {**APPLICATION, "method": "/t.T/unary", "status_code": "OK"}, 2),
        (
            "serve_num_deployment_grpc_error_requests",
            {**DEPLOYMENT, "method": "/t.T/unary", "error_code": "ABORTED"},
            1,
        ),
        ("serve_deployment_request_counter", REPLICA, 10),
        ("serve_deployment_error_counter", {**REPLICA, "exception_type": "ABORTED"}, 1),
        ("serve_deployment_error_counter", REPLICA, 5),
        ("serve_deployment_processing_latency_ms", REPLICA, 15),
        ("serve_num_ongoing_grpc_requests", NODE, 0),
        ("sdk_replica_queued_grpc_requests", OF_REPLICA, 0),
        ("sdk_replica_queue_wait_ms", OF_REPLICA, 1),
        ("sdk_replica_model_requests", {**OF_REPLICA, "model": "m1"}, 2),
        ("sdk_replica_model_requests", OF_REPLICA, 3),
        ("sdk_replica_requests", {**TILL, "method": "/t.T/unary", "status_code": "OK", "caller": "client"}, 2),
        ("sdk_replica_requests", {**TILL, "method": "/t.T/unary", "status_code": "OK", "caller": "deployment"}, 1),
        ("sdk_replica_requests", {**TILL, "method": "/t.T/unary", "status_code": "ABORTED", "caller": "client"}, 1),
        ("sdk_replica_requests", {**TILL, "method": "_OTHER", "status_code": "UNIMPLEMENTED"}, 1),
        ("sdk_replica_requests", TILL, 15),
        ("sdk_replica_rejected_requests", {**TILL, "method": "/t.T/ruled", "reason": "no_rule"}, 1),
        ("sdk_replica_rejected_requests", {**TILL, "status_code": "UNAUTHENTICATED"}, 1),
        ("sdk_replica_rejected_requests", {**TILL, "method": "/t.T/wait", "reason": "overflow"}, 1),
        ("sdk_replica_rejected_requests", {**TILL, "status_code": "RESOURCE_EXHAUSTED"}, 1),
        ("sdk_replica_messages", {**TILL, "method": "/t.T/both", "direction": "received"}, 2),
        ("sdk_replica_messages", {**TILL, "method": "/t.T/both", "direction": "sent"}, 4),
        ("sdk_replica_messages", {**TILL, "method": "/t.T/unary", "direction": "received"}, 4),
        ("sdk_replica_messages", {**TILL, "method": "/t.T/unary", "direction": "sent"}, 3),
        ("sdk_replica_message_bytes", {**TILL, "method": "/t.T/both", "direction": "received"}, 2),
        ("sdk_replica_message_bytes", {**TILL, "method": "/t.T/both", "direction": "sent"}, 12),
        ("sdk_replica_message_bytes", {**TILL, "method": "/t.T/unary", "direction": "received"}, 2),
        ("sdk_replica_message_bytes", {**TILL, "method": "/t.T/unary", "direction": "sent"}, 9),
        ("sdk_replica_current_requests", {**OF_REPLICA, "method": "/t.T/wait"}, 0),
        ("serve_deployment_queued_queries", {**TILL, "handle": "grpc", "actor_id": "actor1"}, 0),
        ("sdk_handle_retries", {"application": "shop", "deployment": "Bank", "reason": "refused"}, 2),
        ("sdk_handle_retries", {"application": "shop", "deployment": "Bank", "reason": "lost"}, 1),
    ],
)
def test_each_metric_and_label(counted: dict[str, Recorded], metric: str, labels: dict[str, str], value: float) -> None:
    assert counted[metric].value(**labels) == value, counted[metric].values


def test_gauges_while_calls_run_and_wait(counted: dict[str, Recorded]) -> None:
    assert during == {"ongoing": 2, "queued": 1, "of_serve": 1}


def test_finer_buckets_are_exported_by_the_bounds_of_ray_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    made = record_metrics(monkeypatch, call_metrics)
    monkeypatch.setattr(call_metrics, "count_retries", Counter)
    waits, durations = CallCounts(LATENCY_BOUNDS_MS), CallCounts(LATENCY_BOUNDS_MS)
    host = SimpleNamespace(waits=waits, models=ModelCounts(), ongoing=0, count_queued=int, take_rejected=Counter)
    server = SimpleNamespace(
        host=host,
        take_counts=lambda: [("/t.T/unary", each) for each in durations.take()],
        take_messages=list,
        count_current=Counter,
    )
    metrics = call_metrics.CallMetrics(
        server,  # type: ignore[arg-type]
        application="shop",
        deployment="Till",
        replica="r1",
        bounds_ms=LATENCY_BOUNDS_MS,
    )
    waits.add(0, 6.0, is_inner=False)
    durations.add(0, 0.22, is_inner=False)
    metrics.export()
    assert made["sdk_replica_queue_wait_ms"].observed == [7500]  # the middle of 5 to 10 s
    assert made["serve_grpc_request_latency_ms"].observed == [250]


def test_rays_own_gauge_of_ongoing_requests_has_our_calls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    manager = SimpleNamespace(_num_ongoing_requests_gauge=SimpleNamespace(set=seen.append))
    actors = {ActorID(b"a" * 16): SimpleNamespace(_replica_impl=SimpleNamespace(_metrics_manager=manager))}
    context = SimpleNamespace(get_actor_id=lambda: "61" * 16)
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    monkeypatch.setattr("ray._private.worker.global_worker.actors", actors)
    assert add_to_processing_queries(lambda: 3)
    manager._num_ongoing_requests_gauge.set(1)  # as Ray Serve does, ten times a second
    assert seen == [4]
    context.get_actor_id = lambda: "another"
    assert not add_to_processing_queries(lambda: 3)


class Series:
    """A metric that keeps its sets of labels, and nothing else."""

    def __init__(self) -> None:
        self.labels: set[tuple[tuple[str, str], ...]] = set()

    def set_default_tags(self, _: object) -> Series:
        return self

    def inc(self, _: float, tags: dict[str, str] | None = None) -> None:
        self.labels.add(tuple((tags or {}).items()))

    observe = set = inc


def test_memory_does_not_grow_with_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    record_metrics(monkeypatch, call_metrics)
    made: list[Series] = []

    def make(*_: object) -> Series:
        made.append(Series())
        return made[-1]

    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(call_metrics, name, make)
    monkeypatch.setattr(call_metrics, "count_retries", Counter)

    async def scenario() -> list[tuple[int, int]]:
        async with serving() as start:
            server = start(unary=(UNARY, unary), model=(UNARY, model), both=(BIDI, both))
            server.host.on_start = request_context_setter("shop")
            metrics = call_metrics.CallMetrics(server, application="shop", deployment="Till", replica="r1")

            async def call_many(begin: int, end: int) -> tuple[int, int]:
                for number in range(begin, end):
                    for method in ("unary", "model", "both", f"none{number}"):
                        peer = Peer(server)
                        peer.head(method, request_id=f"r{number}", multiplexed_model_id=f"m{number}")
                        peer.send(Int32Value(value=number % 2))
                        peer.end()
                        await turns()
                        peer.connection.connection_lost(None)
                    metrics.export()
                gc.collect()
                return sys.getallocatedblocks(), sum(len(each.labels) for each in made)

            await call_many(0, 200)
            return [await call_many(begin, begin + 250) for begin in (200, 450, 700, 950)]

    counted = virtual_time.run(scenario())
    (series,) = {series for _, series in counted}
    assert series > 100  # a hundred models
    # The blocks are those of the process: what another thread keeps, it keeps once.
    growths = [later - blocks for (blocks, _), (later, _) in pairwise(counted)]
    assert min(growths) < 100, "less than one for ten calls"

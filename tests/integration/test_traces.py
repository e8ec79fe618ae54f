"""Replicas export the spans and the metric of their calls by OTLP, as OpenTelemetry's variables say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from probe_pb2 import Ask
from probe_sdk import AsyncProbeSyncClient

from sdk._otel.conventions import CALL_DURATION, DURATION_BOUNDS_S
from tests.integration import traced_apps
from tests.support.otlp_receiver import Received, attributes, receiving

TRACE = "0af7651916cd43dd8448eb211c80319c"
UNARY = "probe.AsyncProbe/Unary"
TRACEPARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")


@pytest.fixture(scope="module")
def collector() -> Iterator[Received]:
    with receiving() as received:
        yield received


@pytest.fixture(autouse=True, scope="module")
def app(deploy: Any, collector: Received) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    deploy(traced_apps.composed(variables), "traced")


def test_the_spans_of_a_composed_stream_are_one_tree(ingress: Any, collector: Received) -> None:
    with AsyncProbeSyncClient(ingress.address, application="traced", timeout=30) as client:
        replies = list(client.Down(Ask(note="a", number=2), metadata=[TRACEPARENT]))
    assert [reply.text or reply.number for reply in replies] == ["aa", 0, 1]
    spans = collector.trace(TRACE, lambda found: len(found) >= 12)
    names = {span.id: span.name for span in spans} | {"b7ad6b7169203331": "the client"}
    unary, down = UNARY, "probe.AsyncProbe/Down"
    assert sorted((names[span.parent], span.name) for span in spans) == sorted(
        [
            ("the client", f"server {down}"),
            (f"server {down}", "internal in the handler"),
            ("internal in the handler", "client probe.SyncProbe/Unary"),
            ("client probe.SyncProbe/Unary", "server probe.SyncProbe/Unary"),
            ("server probe.SyncProbe/Unary", "internal in a thread"),
            ("internal in a thread", f"client {unary}"),
            (f"client {unary}", f"server {unary}"),
            (f"server {unary}", "internal in a batch"),
            (f"server {down}", f"client {down}"),
            (f"client {down}", f"server {down}"),
            (f"server {down}", "internal message 0"),
            (f"server {down}", "internal message 1"),
        ]
    )
    assert {span.resource["service.name"] for span in spans} == {"traced"}
    assert {span.resource["deployment.environment.name"] for span in spans} == {"test"}
    assert len({span.resource["service.instance.id"] for span in spans}) == 3
    assert not any(span.error for span in spans)


def test_errors_of_grpc_are_seen(ingress: Any, collector: Received) -> None:
    with grpc.insecure_channel(ingress.address) as channel:
        call = channel.unary_unary("/probe.AsyncProbe/Unary")
        with pytest.raises(grpc.RpcError):
            call(b"", timeout=30, metadata=[("application", "traced"), ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")])
    (span,) = collector.trace("1" * 32, bool)
    assert (span.attributes["rpc.status_code"], span.error) == ("UNIMPLEMENTED", True)


def test_the_durations_of_calls_are_a_histogram(ingress: Any, collector: Received) -> None:
    with AsyncProbeSyncClient(ingress.address, application="traced", timeout=30) as client:
        list(client.Down(Ask(note="a", number=1)))

    def has_inner_calls(points: list[Any]) -> bool:
        return any(attributes(point.attributes)["rpc.method"] == "probe.SyncProbe/Unary" for _, point in points)

    points = collector.points(CALL_DURATION, has_inner_calls)
    resource, point = points[-1]
    assert resource["service.name"] == "traced"
    assert list(point.explicit_bounds) == list(DURATION_BOUNDS_S)
    assert point.count == sum(point.bucket_counts) > 0
    assert point.sum > 0
    assert not point.HasField("min")
    found = attributes(point.attributes)
    assert found.keys() >= {"rpc.system.name", "rpc.method", "rpc.status_code"}


def test_ray_serve_s_tracing_exports_the_spans_and_the_program_s_provider_the_metric(
    ingress: Any, deploy: Any, collector: Received
) -> None:
    deploy(traced_apps.traced_by_serve(collector.address), "traced_by_serve")
    trace = "3" * 32
    with AsyncProbeSyncClient(ingress.address, application="traced_by_serve", timeout=30) as client:
        client.Unary(Ask(note="a"), metadata=[("traceparent", f"00-{trace}-{'4' * 16}-01")])
    spans = collector.trace(trace, lambda found: len(found) >= 2)
    names = {span.id: span.name for span in spans} | {"4" * 16: "the client"}
    assert sorted((names[span.parent], span.name) for span in spans) == [
        (f"server {UNARY}", "internal in a batch"),
        ("the client", f"server {UNARY}"),
    ]
    points = collector.points(
        CALL_DURATION, lambda found: any(each["service.name"] == "its own provider" for each, _ in found)
    )
    (point, *_) = (point for resource, point in points if resource["service.name"] == "its own provider")
    assert attributes(point.attributes).items() >= {"rpc.method": UNARY, "rpc.status_code": "OK"}.items()
    assert (point.count, list(point.explicit_bounds)) == (1, list(DURATION_BOUNDS_S))

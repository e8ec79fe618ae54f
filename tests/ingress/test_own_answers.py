"""Spans of the calls that Envoy reports to have answered itself."""

from __future__ import annotations

import pytest
from opentelemetry.trace import StatusCode

from sdk._gen import envoy_pb2 as pb
from sdk._ingress.own_answers import add_span
from sdk._otel import current
from tests.support.spans import SAMPLED, collected


def entry(headers: dict[str, str], response: dict[str, str]) -> pb.HTTPAccessLogEntry:
    made = pb.HTTPAccessLogEntry(
        common_properties=pb.AccessLogCommon(route_name="app"),
        request=pb.HTTPRequestProperties(authority="localhost:9000", path="/t.T/Get", request_headers=headers),
        response=pb.HTTPResponseProperties(response_headers=response, response_code_details="no_healthy_upstream"),
    )
    made.common_properties.start_time.FromNanoseconds(1_000)
    made.common_properties.duration.FromNanoseconds(500)
    return made


@pytest.mark.parametrize(
    ("response", "code", "description"),
    [
        ({"grpc-status": "14", "grpc-message": "No replica%20is ready."}, "UNAVAILABLE", "No replica is ready."),
        ({"grpc-status": "8", "grpc-message": "too many"}, "RESOURCE_EXHAUSTED", None),
        ({"call-status": "UNAUTHENTICATED"}, "UNAUTHENTICATED", None),
        # What clients read: a reset without a status, and a status that does not exist.
        ({}, "INTERNAL", "no_healthy_upstream"),
        ({"grpc-status": "99"}, "UNKNOWN", "no_healthy_upstream"),
    ],
)
def test_the_span_of_an_answer(response: dict[str, str], code: str, description: str | None) -> None:
    with collected() as spans:
        add_span(entry(SAMPLED, {**response, "request_id": "r1"}))
    span = spans.one()
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert (span.start_time, span.end_time) == (1_000, 1_500)
    assert span.status.status_code is (StatusCode.ERROR if description else StatusCode.UNSET)
    assert span.status.description == description
    assert dict(span.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": "_OTHER",
        "rpc.method_original": "t.T/Get",
        "rpc.status_code": code,
        "server.address": "localhost",
        "server.port": 9000,
        "ray.serve.application": "app",
        "ray.serve.request_id": "r1",
    } | ({"error.type": code} if description else {})


def test_a_process_without_spans_makes_none() -> None:
    assert current.tracing is None
    add_span(entry(SAMPLED, {}))

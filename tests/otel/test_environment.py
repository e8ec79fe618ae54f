"""The exporters that environment variables ask for, and what is logged where they can't be had."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.metrics import _internal as metrics
from opentelemetry.sdk.trace import TracerProvider

from sdk._otel import current, environment
from sdk._otel.environment import Telemetry, export_interval_s, exporter_names, find_exporters, make_resource
from sdk._otel.exports import watch
from sdk._wire.traced_call import ServerSpans
from sdk.errors import MissingExtraError, OptionsError
from tests.support.loops import PATIENCE_S
from tests.support.otlp_receiver import Received, receiving
from tests.support.spans import SAMPLED, collected
from tests.support.wire_rig import UNARY, Peer, serving


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, [], []),
        ({"OTEL_SERVICE_NAME": "a"}, [], []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_grpc"], []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, ["otlp_proto_grpc"], []),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            ["otlp_proto_http"],
            [],
        ),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, [], []),
        ({"OTEL_TRACES_EXPORTER": " console , otlp", "OTEL_SDK_DISABLED": "false"}, ["console", "otlp_proto_grpc"], []),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, [], []),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, [], ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, [], ["otlp_proto_grpc"]),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"},
            [],
            ["otlp_proto_http"],
        ),
    ],
)
def test_exporters_by_variable(variables: dict[str, str], traces: list[str], metrics: list[str]) -> None:
    assert exporter_names(variables, "traces") == traces
    assert exporter_names(variables, "metrics") == metrics
    assert [callable(each) for each in find_exporters(variables, "traces")] == [True] * len(traces)


def test_an_unknown_protocol() -> None:
    variables = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    with pytest.raises(OptionsError, match="OTEL_EXPORTER_OTLP_PROTOCOL must be one of grpc, http/protobuf, not 'http"):
        exporter_names(variables, "traces")


def test_an_unknown_exporter_names_those_that_are_installed() -> None:
    with pytest.raises(OptionsError, match=r"OTEL_TRACES_EXPORTER: .* 'zipkin'; there are console, otlp, otlp_proto"):
        find_exporters({"OTEL_TRACES_EXPORTER": "zipkin"}, "traces")


def test_an_exporter_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "entry_points", lambda group: ())
    expected = r"OTEL_TRACES_EXPORTER .* needs opentelemetry-exporter-otlp-proto-grpc, .* 'ray-grpc-sdk\[otel\]'"
    with pytest.raises(MissingExtraError, match=expected):
        find_exporters({"OTEL_TRACES_EXPORTER": "otlp"}, "traces")


@pytest.fixture
def _no_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", type(trace._TRACER_PROVIDER_SET_ONCE)())
    monkeypatch.setattr(metrics, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics, "_METER_PROVIDER_SET_ONCE", type(metrics._METER_PROVIDER_SET_ONCE)())
    monkeypatch.setattr(current, "tracing", None)


@pytest.mark.usefixtures("_no_providers")
@pytest.mark.parametrize("missing", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.grpc"])
def test_calls_are_served_without_what_is_missing(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in list(sys.modules):
        if name.startswith(missing):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    with caplog.at_level(logging.ERROR):
        Telemetry().set_up({"OTEL_TRACES_EXPORTER": "otlp"}, "traces", "app", "1")
    assert "pip install 'ray-grpc-sdk[otel]'" in caplog.text
    assert current.refresh() is None


@pytest.mark.parametrize(
    ("variables", "service", "instance"),
    [
        ({}, "app", "i"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop", "i"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=store,service.instance.id=7"}, "store", "7"),
    ],
)
def test_the_service_is_the_application_unless_a_variable_names_it(
    variables: dict[str, str], service: str, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = make_resource(variables, "app", "i").attributes
    assert (found["service.name"], found["service.instance.id"]) == (service, instance)


@pytest.mark.parametrize(("text", "seconds"), [("500", 0.5), ("", 60), ("soon", 60), ("-1", 60)])
def test_the_interval_of_metrics(text: str, seconds: float) -> None:
    assert export_interval_s({"OTEL_METRIC_EXPORT_INTERVAL": text}) == seconds


def test_a_provider_of_the_program_stays() -> None:
    with collected() as spans:
        Telemetry().set_up({"OTEL_TRACES_EXPORTER": "console"}, "traces", "app", "1")
        assert trace.get_tracer_provider() is spans.provider


@pytest.fixture
def collector() -> Iterator[Received]:
    with receiving() as received:
        yield received


@pytest.mark.usefixtures("_no_providers")
@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
async def test_what_is_left_is_exported_at_the_end(
    sampler: str, collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    telemetry = Telemetry()
    telemetry.set_up({"OTEL_TRACES_EXPORTER": "otlp"}, "traces", "app", "1")
    provider: Any = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    tracing = current.refresh()
    assert tracing is not None
    span, _ = tracing.start_client("t.T/Get", {})
    assert (span is None) == (sampler == "always_off")
    if span is not None:
        span.end()
    await telemetry.shut_down_within(30)
    expected = ["client t.T/Get"] if span is not None else []
    assert [received.name for received in collector.spans] == expected


class Provider:
    """A provider whose collector answers after an event."""

    def __init__(self, answers: threading.Event) -> None:
        self.answers = answers
        self.is_down = threading.Event()

    def shutdown(self) -> None:
        self.answers.wait()
        self.is_down.set()


async def test_a_collector_that_hangs_delays_the_end_for_a_limited_time_and_keeps_no_other_from_the_last_export(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, open_ = threading.Event(), threading.Event()
    open_.set()
    telemetry = Telemetry()
    hanging, other = Provider(release), Provider(open_)
    telemetry._providers |= {"traces": hanging, "metrics": other}
    await telemetry.shut_down_within(0.01)
    assert other.is_down.wait(PATIENCE_S)
    assert not hanging.is_down.is_set()
    release.set()
    assert "the last traces of this process were not exported within 0.01 s" in caplog.text


@pytest.mark.parametrize("begins_before", [False, True])
async def test_the_last_metrics_wait_for_an_export_that_has_begun(begins_before: bool) -> None:
    seen: list[str] = []
    has_begun, may_end = threading.Event(), threading.Event()

    class Exporter:
        def export(self, data: str) -> None:
            seen.append(f"begin {data}")
            has_begun.set()
            may_end.wait()
            seen.append(f"end {data}")

        def shutdown(self) -> None:
            seen.append("shutdown")

    telemetry = Telemetry()
    exporter: Any = watch(Exporter(), telemetry._outages["metrics"])
    telemetry.metric_exporters.append(exporter)
    periodic = threading.Thread(target=exporter.export, args=("periodic",))
    if begins_before:
        periodic.start()
        assert has_begun.wait(PATIENCE_S)
        asyncio.get_running_loop().call_later(0, may_end.set)
    else:
        may_end.set()
    last: Any = "last"
    await telemetry.shut_down_within(PATIENCE_S, last)
    before = ["begin periodic", "end periodic"] if begins_before else []
    assert seen == [*before, "begin last", "end last", "shutdown"]


@pytest.mark.usefixtures("_no_providers")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9999"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
    ],
)
def test_calls_are_served_with_a_value_that_opentelemetry_refuses(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"OTEL_EXPORTER_OTLP_HEADERS": "key=secret", "OTEL_TRACES_EXPORTER": "otlp", variable: value}
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    Telemetry().set_up(variables, "traces", "app", "1")
    names = ", ".join(sorted(variables))
    assert f"OpenTelemetry exports no traces: a value among {names} is wrong: " in caplog.text
    assert "secret" not in caplog.text
    assert current.refresh() is None


def test_a_propagator_that_does_not_exist_is_logged_once() -> None:
    program = """\
import logging
logging.basicConfig(format="%(name)s %(message)s")
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
from sdk._otel import current
assert (current.refresh(), current.refresh()) == (None, None)
"""
    environment = {**os.environ, "OTEL_PROPAGATORS": "b4"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("sdk.tracing ")]
    assert line.startswith("sdk.tracing calls have no spans: OTEL_PROPAGATORS: Propagator b4 not found.")


@pytest.mark.usefixtures("_no_providers")
def test_a_disabled_sdk_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    trace.set_tracer_provider(TracerProvider())
    assert current.refresh() is None


@pytest.fixture
def _only_baggage() -> Iterator[None]:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(W3CBaggagePropagator())
    yield
    propagate.set_global_textmap(before)


@pytest.mark.usefixtures("_only_baggage")
async def test_other_propagators_are_honoured() -> None:
    async def handler(request: Any) -> Any:
        return StringValue()

    with collected() as spans:
        assert spans.tracing.metadata_keys == {"baggage"}
        async with serving() as serve:
            server = serve(Get=(UNARY, handler))
            server.host.spans = ServerSpans(spans.tracing)
            peer = Peer(server)
            peer.call("Get", b"", **SAMPLED)
            await peer.answer()
        assert spans.one().parent is None

"""Deployments whose handlers make spans. A separate module, because replicas import it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from probe_pb2 import Ask, Told
from probe_sdk import AsyncProbeBase, AsyncProbeHandle, SyncProbeBase, SyncProbeHandle
from ray import serve

from sdk import grpc_deployment

FAST = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 5}
tracer = trace.get_tracer("user")


@grpc_deployment(expose=False, partial=True, **FAST)
class Sync(SyncProbeBase):
    """Its handlers run in threads."""

    def __init__(self, inner: AsyncProbeHandle) -> None:
        self.inner = inner

    def Unary(self, request: Ask) -> Told:
        with tracer.start_as_current_span("in a thread"):
            return self.inner.Unary(request).result()


@grpc_deployment(expose=False, partial=True, **FAST)
class Leaf(AsyncProbeBase):
    """With a collector's address, it sets its own meter provider."""

    def __init__(self, collector: str | None = None) -> None:
        if collector is not None:
            reader = PeriodicExportingMetricReader(OTLPMetricExporter(collector), export_interval_millis=100)
            metrics.set_meter_provider(MeterProvider([reader], Resource({"service.name": "its own provider"})))

    async def Unary(self, request: Ask) -> Told:
        return Told(text=await self.joined(request.note))

    @serve.batch(max_batch_size=1)
    async def joined(self, notes: list[str]) -> list[str]:
        with tracer.start_as_current_span("in a batch"):
            return [note * 2 for note in notes]

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        for number in range(request.number):
            with tracer.start_as_current_span(f"message {number}"):
                yield Told(number=number)


@grpc_deployment(partial=True, **FAST)
class Front(AsyncProbeBase):
    def __init__(self, sync: SyncProbeHandle, leaf: AsyncProbeHandle) -> None:
        self.sync, self.leaf = sync, leaf

    async def Down(self, request: Ask) -> AsyncIterator[Told]:
        with tracer.start_as_current_span("in the handler"):
            yield await self.sync.Unary(request)
        async for told in self.leaf.Down(request):
            yield told


def composed(variables: dict[str, str]) -> Any:
    """Return the application, with these environment variables in its replicas."""
    actor = {"runtime_env": {"env_vars": variables}}
    leaf = Leaf.options(ray_actor_options=actor).bind()
    sync = Sync.options(ray_actor_options=actor).bind(AsyncProbeHandle(leaf))
    return Front.options(ray_actor_options=actor).bind(SyncProbeHandle(sync), AsyncProbeHandle(leaf))


def exporters() -> list[SpanProcessor]:
    """Return the span processors, for Ray Serve's own tracing."""
    return [SimpleSpanProcessor(OTLPSpanExporter(os.environ["COLLECTOR"]))]


def traced_by_serve(collector: str) -> Any:
    """Return an application whose spans Ray Serve exports, and which has a meter provider."""
    variables = {
        "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": f"{__name__}:exporters",
        "RAY_SERVE_TRACING_SAMPLING_RATIO": "1",
        "COLLECTOR": collector,
        "OTEL_TRACES_EXPORTER": "console",  # never overrides what Ray Serve has set up
    }
    leaf = Leaf.options(ray_actor_options={"runtime_env": {"env_vars": variables}}, expose=True)
    return leaf.bind(collector)

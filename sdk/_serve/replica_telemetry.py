"""OpenTelemetry in a replica: the provider of its spans, and its calls' spans.

A provider that Ray (``tracing_config``, ``--tracing-startup-hook``) or the program has set makes the spans. Without
one, environment variables may ask for one (``sdk/_otel/environment.py``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdk._otel import current
from sdk._otel.conventions import DURATION_BOUNDS_S
from sdk._otel.environment import Telemetry, export_interval_s
from sdk._serve import internals
from sdk._serve.call_metrics import EXPORT_INTERVAL_S
from sdk._serve.internals import trace_batches
from sdk._serve.recorded_durations import RecordedDurations, meter_provider

if TYPE_CHECKING:
    from sdk._otel.call_durations import CallDurations
    from sdk._serve.call_metrics import CallMetrics
    from sdk._wire.server import WireServer

#: Upper bounds of the buckets in which a replica counts, in milliseconds: Ray Serve's, and OpenTelemetry's.
LATENCY_BOUNDS_MS = sorted({*internals.LATENCY_BOUNDS_MS, *(round(bound * 1e3) for bound in DURATION_BOUNDS_S)})
# Seconds that the last export may take.
_FLUSH_S = 3.0
#: Variable that adds an event for each message to the spans.
MESSAGE_EVENTS = "SDK_OTEL_MESSAGE_EVENTS"


class ReplicaTelemetry:
    """OpenTelemetry in one replica.

    Args:
        server: The replica's wire server.
        metrics: Its metrics, whose counts are exported by OpenTelemetry, too.
        context: Ray Serve's context of the replica.
        interceptors: The deployment's interceptors.
    """

    def __init__(self, server: WireServer, metrics: CallMetrics, context: Any, interceptors: Sequence[Any]) -> None:
        self._server = server
        self._metrics = metrics
        self._exports: asyncio.Task[None] | None = None
        self._context = context
        self._telemetry = Telemetry()
        self._durations: CallDurations | None = None
        self._recorded: RecordedDurations | None = None
        self._interceptors = interceptors

    def start(self) -> None:
        """Set up what environment variables ask for. Called after the user's constructor, which may set a provider."""
        replica = self._context.replica_id
        self._telemetry.set_up(os.environ, "traces", self._context.app_name, replica.unique_id)
        self._telemetry.set_up(os.environ, "metrics", self._context.app_name, replica.unique_id)
        if self._telemetry.metric_exporters and self._telemetry.resource is not None:
            from sdk._otel.call_durations import CallDurations

            self._durations = CallDurations(self._telemetry.resource, LATENCY_BOUNDS_MS, os.environ)
            self._metrics.durations = self._durations
            self._exports = asyncio.get_running_loop().create_task(self._export_forever())
        self.follow_provider()

    def follow_provider(self) -> None:
        """Make spans from now on, if somebody has set a provider."""
        trace_calls(self._server, self._context.app_name, self._context.deployment, self._interceptors)
        if self._server.host.spans is not None:
            trace_batches()
        if self._durations is None:
            self._follow_meters()

    def _follow_meters(self) -> None:
        """Record the calls with a meter provider that the program has set, from now on."""
        provider = meter_provider()
        if provider is None or (self._recorded is not None and self._recorded.provider is provider):
            return
        self._metrics.durations = self._recorded = RecordedDurations(provider, LATENCY_BOUNDS_MS)
        if self._exports is None:
            self._exports = asyncio.get_running_loop().create_task(self._record_forever())

    async def _record_forever(self) -> None:
        while self._recorded is not None:
            await asyncio.sleep(EXPORT_INTERVAL_S)
            await asyncio.to_thread(self._recorded.record, self._recorded.take())

    async def stop(self) -> None:
        """Export what is left."""
        if self._exports is not None:
            self._exports.cancel()
        if self._recorded is not None:
            await asyncio.to_thread(self._recorded.record, self._recorded.take())
        last = None if self._durations is None else self._durations.collect()
        await self._telemetry.shut_down_within(_FLUSH_S, last)

    async def _export_forever(self) -> None:
        while True:
            await asyncio.sleep(export_interval_s(os.environ))
            data = None if self._durations is None else self._durations.collect()
            for exporter in self._telemetry.metric_exporters if data is not None else ():
                await asyncio.to_thread(exporter.export, data)


def trace_calls(server: WireServer, application: str, deployment: str, interceptors: Sequence[Any]) -> None:
    """Make spans of a server's calls from now on, if the process has a tracer provider.

    Args:
        server: The wire server of a deployment.
        application: The application's name.
        deployment: The deployment's name.
        interceptors: The deployment's interceptors; with one of OpenTelemetry's, that makes the spans.
    """
    tracing, spans = current.refresh(), server.host.spans
    if tracing is None or any(makes_server_spans(each) for each in interceptors):
        server.host.spans = None
    elif spans is None or spans.tracing is not tracing:
        from sdk._wire.traced_call import ServerSpans

        attributes = {"ray.serve.application": application, "ray.serve.deployment": deployment}
        server.host.spans = ServerSpans(tracing, attributes, events=wants_events())


def makes_server_spans(interceptor: Any) -> bool:
    """Return True for an interceptor of OpenTelemetry's own instrumentation of grpc."""
    return any(each.__module__.startswith("opentelemetry.instrumentation.grpc") for each in type(interceptor).__mro__)


def wants_events() -> bool:
    """Return True if the environment asks for an event for each message."""
    return os.environ.get(MESSAGE_EVENTS, "").strip().lower() in ("1", "true", "yes", "on")

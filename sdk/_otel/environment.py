"""OpenTelemetry's SDK as environment variables configure it, in a replica or a proxy where nobody else has set it up.

https://opentelemetry.io/docs/languages/sdk-configuration/. The SDK reads most of the variables itself. Here are those
that choose the exporters: with ``OTEL_TRACES_EXPORTER`` or an endpoint for OTLP there are spans, with
``OTEL_METRICS_EXPORTER`` or an endpoint for metrics there are metrics.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from sdk._extras import missing_package
from sdk._otel.exports import Outage, Signal, count_overflows, watch
from sdk._otel.otlp import Protocol, protocol
from sdk.errors import MissingExtraError, OptionsError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

logger = logging.getLogger("sdk.tracing")

# Modules of OpenTelemetry, and the function of each that returns the provider of this process.
_GETTERS = {"opentelemetry.trace": "get_tracer_provider", "opentelemetry.metrics": "get_meter_provider"}
_PROTOCOLS: dict[Protocol, str] = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
# Packages that the extra brings, for the message of an installation without them.
_OTLP_PACKAGES = {name: f"opentelemetry-exporter-{name.replace('_', '-')}" for name in _PROTOCOLS.values()}
# Variables that also ask for the exporter "otlp".
_ENDPOINTS: dict[Signal, tuple[str, ...]] = {
    "traces": ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    # Not the endpoint of all signals: many collectors of spans take no metrics, and each try would log an error.
    "metrics": ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",),
}


def exporter_names(environment: Mapping[str, str], signal: Signal) -> list[str]:
    """Return the names of the exporters that environment variables ask for, by entry point.

    Args:
        environment: Variables by name.
        signal: Spans, or metrics.

    Raises:
        OptionsError: The protocol of OTLP does not exist.

    Example:
        >>> exporter_names({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, "traces")
        ['otlp_proto_grpc']
        >>> exporter_names({"OTEL_TRACES_EXPORTER": "none"}, "traces")
        []
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    text = environment.get(f"OTEL_{signal.upper()}_EXPORTER", "")
    if not text.strip():
        text = "otlp" if any(environment.get(name) for name in _ENDPOINTS[signal]) else "none"
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [_PROTOCOLS[protocol(environment, signal)] if name == "otlp" else name for name in names if name != "none"]


def export_interval_s(environment: Mapping[str, str]) -> float:
    """Return the seconds between two exports of metrics (``OTEL_METRIC_EXPORT_INTERVAL``); 60 by default."""
    try:
        seconds = float(environment.get("OTEL_METRIC_EXPORT_INTERVAL") or 60_000) / 1e3
    except ValueError:
        seconds = 60.0
    return seconds if seconds > 0 else 60.0


def find_exporters(environment: Mapping[str, str], signal: Signal) -> list[Any]:
    """Return the classes of the exporters that environment variables ask for.

    Args:
        environment: Variables by name.
        signal: Spans, or metrics.

    Raises:
        OptionsError: There is no such exporter.
        MissingExtraError: It is not installed.
    """
    return [_load(name, signal) for name in exporter_names(environment, signal)]


def _load(name: str, signal: Signal) -> Any:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    found = {point.name: point for point in entry_points(group=f"opentelemetry_{signal}_exporter")}
    if name not in found:
        if name in _OTLP_PACKAGES:
            raise MissingExtraError(f"{variable} (or an endpoint for OTLP)", _OTLP_PACKAGES[name], "otel")
        known = ", ".join(sorted({"otlp", *found}))
        raise OptionsError(f"{variable}: no installed package has an exporter {name!r}; there are {known}")
    try:
        return found[name].load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(variable, missing_package(error) or name, "otel") from error


def make_resource(environment: Mapping[str, str], service: str, instance: str) -> Resource:
    """Return the description of this process that its spans and metrics carry.

    Args:
        environment: Variables by name. ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` override the others.
        service: Name of the service.
        instance: Its id, unique among the processes of the service.
    """
    from opentelemetry.sdk.resources import Resource

    given = environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    keys = {pair.partition("=")[0].strip() for pair in given.split(",")}
    attributes = {"service.instance.id": instance}
    if not environment.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = service
    return Resource.create({key: value for key, value in attributes.items() if key not in keys})


class Telemetry:
    """The providers that are set up in this process, and the exporters of the calls' metric.

    Attributes:
        resource: The description of this process; None if environment variables ask for nothing.
        metric_exporters: Exporters for metrics that are made without a meter provider.
    """

    def __init__(self) -> None:
        self.resource: Resource | None = None
        self.metric_exporters: list[Any] = []
        self._providers: dict[Signal, Any] = {}
        self._outages: dict[Signal, Outage] = {"traces": Outage("traces"), "metrics": Outage("metrics")}

    def set_up(self, environment: Mapping[str, str], signal: Signal, service: str, instance: str) -> None:
        """Set the provider of spans or of metrics, unless somebody else has.

        What can't be set up is logged: calls are served without it.

        Args:
            environment: Variables by name.
            signal: Spans, or metrics.
            service: Name of the service, if no variable names it.
            instance: Id of this process.
        """
        try:
            exporters = _exporters_with_sdk(environment, signal)
            if exporters:
                self.resource = self.resource or make_resource(environment, service, instance)
                if signal == "traces":
                    self._set_up_traces(exporters, self.resource)
                else:
                    self._set_up_metrics(exporters, self.resource)
        except (OptionsError, MissingExtraError) as error:
            logger.error("OpenTelemetry exports no %s: %s", signal, error)
        except Exception as error:  # of OpenTelemetry and of any exporter, about the value of a variable
            names = ", ".join(sorted(name for name in environment if name.startswith("OTEL_")))
            logger.error("OpenTelemetry exports no %s: a value among %s is wrong: %s", signal, names, error)

    def _set_up_traces(self, exporters: list[Any], resource: Resource) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return
        provider = TracerProvider(resource=resource)
        for exporter in exporters:
            provider.add_span_processor(BatchSpanProcessor(watch(exporter(), self._outages["traces"])))
        count_overflows(self._outages["traces"])
        trace.set_tracer_provider(provider)
        self._providers["traces"] = provider

    def _set_up_metrics(self, exporters: list[Any], resource: Resource) -> None:
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

        # Some packages have a reader for another program that collects, instead of an exporter.
        readers = [each() for each in exporters if issubclass(each, MetricReader)]
        senders = [each for each in exporters if not issubclass(each, MetricReader)]
        outage = self._outages["metrics"]
        self.metric_exporters = [watch(each(), outage) for each in senders]
        if isinstance(metrics.get_meter_provider(), MeterProvider):
            return
        # With separate exporters: one must not be called by two threads at once.
        periodic = [PeriodicExportingMetricReader(watch(each(), outage)) for each in senders]
        provider = MeterProvider([*readers, *periodic], resource)
        metrics.set_meter_provider(provider)
        self._providers["metrics"] = provider

    async def shut_down_within(self, seconds: float, last: MetricsData | None = None) -> None:
        """Export what is left, of a provider that somebody else has set too.

        Each provider has a thread, so that a collector that hangs delays neither the others nor the end of the process.

        Args:
            seconds: Most seconds to wait for collectors; what is then left is lost, and a warning says so.
            last: The last metrics for :attr:`metric_exporters`.
        """
        jobs: list[tuple[str, Callable[[], object]]] = [
            (signal, provider.shutdown) for signal, provider in self._providers.items()
        ]
        jobs += [("metrics", partial(_export_last, each, last)) for each in self.metric_exporters]
        for module, getter in _GETTERS.items():
            api = sys.modules.get(module)
            found: Any = getattr(api, getter)() if api is not None else None
            if found not in self._providers.values() and hasattr(found, "force_flush"):
                jobs.append((module.rpartition(".")[2], found.force_flush))
        threads = [(signal, threading.Thread(target=_finish, args=(job,), daemon=True)) for signal, job in jobs]
        for _, thread in threads:
            thread.start()
        await asyncio.to_thread(_join, [thread for _, thread in threads], seconds)
        if left := {signal for signal, thread in threads if thread.is_alive()}:
            names = " and ".join(sorted(left))
            logger.warning("the last %s of this process were not exported within %g s", names, seconds)
        for outage in self._outages.values():
            outage.close()


def _export_last(exporter: Any, last: MetricsData | None) -> None:
    if last is not None:
        exporter.export(last)
    exporter.shutdown()


def _finish(job: Callable[[], object]) -> None:
    try:
        job()
    except Exception:  # of any reader or processor
        logger.exception("the last spans or metrics of a provider were not exported")


def _join(threads: list[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _exporters_with_sdk(environment: Mapping[str, str], signal: Signal) -> list[Any]:
    """Return the exporters' classes, after a check that OpenTelemetry's SDK is installed."""
    if exporter_names(environment, signal):
        try:
            import opentelemetry.sdk.trace  # noqa: F401 - for the error that it may raise
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"OTEL_{signal.upper()}_EXPORTER", "opentelemetry-sdk", "otel") from error
    return find_exporters(environment, signal)

"""Metrics of a replica's gRPC calls, under the names that Ray Serve has for its own.

So Ray's Grafana dashboards show them as they show calls through Ray Serve's proxies
(https://docs.ray.io/en/latest/serve/monitoring.html#metrics). A call adds one to a number
(``sdk/_wire/call_counts.py``); every two seconds the numbers go to Ray's exporter, whose functions cost ten times as
much as the whole count.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from sdk._channel.target import count_retries
from sdk._serve.internals import LATENCY_BOUNDS_MS
from sdk._wire.call_counts import STATUS_NAMES

if TYPE_CHECKING:
    from sdk._wire.server import WireServer

EXPORT_INTERVAL_S = 2.0
#: Value of the label ``method`` for all methods that the application does not have: a client can name any.
UNKNOWN_METHOD = "_OTHER"
# Observations of a histogram in one interval. Ray takes one at a time, here and again in its agent.
_MAX_OBSERVATIONS = 400


Tags = tuple[tuple[str, str], ...]


class BoundedHistogram:
    """Buckets that are exported as observations, and no more than Ray can take.

    Above the limit all series are thinned by the same factor, with the rest carried to the next export: quantiles, and
    the ratios of series, stay those of all calls; the count does not.

    Args:
        bounds: Upper bounds of the buckets, ascending.
        limit: Most observations in one export.

    Example:
        >>> histogram = BoundedHistogram([1, 2], limit=4)
        >>> list(histogram.observations({(("method", "A"),): [1, 0, 1]}))
        [((('method', 'A'),), 0.5), ((('method', 'A'),), 4)]
        >>> len(list(histogram.observations({(("method", "A"),): [100, 0, 0]})))
        4
    """

    def __init__(self, bounds: Sequence[float], limit: int = _MAX_OBSERVATIONS) -> None:
        middles = [(low + high) / 2 for low, high in zip((0.0, *bounds), bounds, strict=False)]
        self._values = [*middles, bounds[-1] * 2]
        self._limit = limit
        self._carried: dict[tuple[Tags, int], float] = {}

    def observations(self, series: Mapping[Tags, Sequence[int]]) -> Iterator[tuple[Tags, float]]:
        """Yield the observations that represent new calls.

        Args:
            series: Numbers of calls by bucket, for each set of tags.
        """
        total = sum(map(sum, series.values()))
        factor = min(1.0, self._limit / total) if total else 1.0
        for tags, buckets in series.items():
            for index, number in enumerate(buckets):
                if number:
                    due = number * factor + self._carried.get((tags, index), 0.0)
                    whole = int(due + 1e-9)
                    self._carried[tags, index] = due - whole
                    for _ in range(whole):
                        yield tags, self._values[index]


class DurationSink(Protocol):
    """Takes the calls for OpenTelemetry's metric."""

    def add(self, path: str, status: str, buckets: Sequence[int], seconds: float) -> None:
        """Add calls of one method, whose path is empty for methods that the server does not have."""


class CallMetrics:
    """Exports the counts of one replica's wire server.

    Args:
        server: The server.
        application: Name of the replica's application.
        deployment: Name of its deployment.
        replica: Its unique id, as Ray Serve's own metrics have it.
        bounds_ms: Upper bounds of the buckets in which the server counts; with those of Ray Serve.

    Attributes:
        durations: Takes the calls for OpenTelemetry's metric, too; None if nobody wants it.
    """

    def __init__(
        self,
        server: WireServer,
        *,
        application: str,
        deployment: str,
        replica: str,
        bounds_ms: Sequence[float] = LATENCY_BOUNDS_MS,
    ) -> None:
        self._server = server
        self._bucket = [*(bisect_left(LATENCY_BOUNDS_MS, bound) for bound in bounds_ms), len(LATENCY_BOUNDS_MS)]
        self.durations: DurationSink | None = None
        self._of_application = {"route": application, "application": application}
        self._of_deployment = {"deployment": deployment, **self._of_application}
        of_replica = {"replica": replica, **self._of_deployment}
        by_status = ("method", "route", "application", "status_code")
        self._requests = Counter("serve_num_grpc_requests", "The number of gRPC requests processed.", by_status)
        self._errors = Counter(
            "serve_num_grpc_error_requests",
            "The number of errored gRPC responses.",
            ("route", "error_code", "method", "application"),
        )
        self._deployment_errors = Counter(
            "serve_num_deployment_grpc_error_requests",
            "The number of errored gRPC responses returned by each deployment.",
            ("deployment", "error_code", "method", "route", "application"),
        )
        self._latency = Histogram(
            "serve_grpc_request_latency_ms",
            "The latency of gRPC requests, measured in the replica.",
            list(LATENCY_BOUNDS_MS),
            by_status,
        )
        self._ongoing = Gauge(
            "serve_num_ongoing_grpc_requests",
            "The number of ongoing requests in this gRPC ingress.",
            ("node_id", "node_ip_address"),
        )
        labels = ("deployment", "replica", "application", "route")
        self._processed = Counter(
            "serve_deployment_request_counter",
            "The number of queries that have been processed in this replica.",
            labels,
        ).set_default_tags(of_replica)
        self._failed = Counter(
            "serve_deployment_error_counter",
            "The number of exceptions that have occurred in this replica.",
            (*labels, "exception_type"),
        ).set_default_tags(of_replica)
        self._processing = Histogram(
            "serve_deployment_processing_latency_ms",
            "The latency for queries to be processed.",
            list(LATENCY_BOUNDS_MS),
            labels,
        ).set_default_tags(of_replica)
        of_replicas = {key: of_replica[key] for key in labels[:3]}
        self._queued = Gauge(
            "sdk_replica_queued_grpc_requests",
            "Calls that wait in the replica for one of max_ongoing_requests handlers to end.",
            labels[:3],
        ).set_default_tags(of_replicas)
        # Ray Serve's handles have this one, with the requests that wait in them.
        self._queued_of_serve = Gauge(
            "serve_deployment_queued_queries",
            "The current number of queries to this deployment waiting to be assigned to a replica.",
            ("deployment", "application", "handle", "actor_id"),
        ).set_default_tags(
            {
                "deployment": deployment,
                "application": application,
                "handle": "grpc",
                "actor_id": ray.get_runtime_context().get_actor_id() or "",
            }
        )
        self._current = Gauge(
            "sdk_replica_current_requests",
            "Calls whose handler runs, and calls that wait for a handler to end, by method.",
            (*labels[:3], "method", "state"),
        ).set_default_tags(of_replicas)
        self._seen_current: set[tuple[str, str]] = set()
        self._waits = Histogram(
            "sdk_replica_queue_wait_ms",
            "Milliseconds that calls have waited for one of max_ongoing_requests handlers to end, if they had to.",
            list(LATENCY_BOUNDS_MS),
            labels[:3],
        ).set_default_tags(of_replicas)
        self._models = Counter(
            "sdk_replica_model_requests",
            "Calls whose handler has asked Ray Serve for the id of its model, by that id.",
            (*labels[:3], "model"),
        ).set_default_tags(of_replicas)
        of_deployments = {key: of_replica[key] for key in labels[::2]}
        self._calls = Counter(
            "sdk_replica_requests",
            "Calls that have ended, of clients and of other deployments.",
            (*labels[::2], "method", "status_code", "caller"),
        ).set_default_tags(of_deployments)
        directions = (*labels[::2], "method", "direction")
        self._messages = Counter(
            "sdk_replica_messages", "Request messages and response messages.", directions
        ).set_default_tags(of_deployments)
        self._bytes = Counter(
            "sdk_replica_message_bytes", "Bytes of messages, as they were sent.", directions
        ).set_default_tags(of_deployments)
        self._rejected = Counter(
            "sdk_replica_rejected_requests",
            "Calls that were refused before their handler, by the reason.",
            (*labels[::2], "method", "status_code", "reason"),
        ).set_default_tags(of_deployments)
        self._retries = Counter(
            "sdk_handle_retries",
            "Calls of this process through handles that were sent to another replica of the deployment.",
            ("application", "deployment", "reason"),
        )
        self._retries_before: Counts[tuple[str, str, str]] = Counts()
        self._wait_times = BoundedHistogram(LATENCY_BOUNDS_MS)
        self._latencies = BoundedHistogram(LATENCY_BOUNDS_MS)
        self._processing_times = BoundedHistogram(LATENCY_BOUNDS_MS)
        self._node = {
            "node_id": ray.get_runtime_context().get_node_id(),
            "node_ip_address": ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
        }

    async def export_forever(self) -> None:
        """Export every two seconds."""
        while True:
            await asyncio.sleep(EXPORT_INTERVAL_S)
            self.export()

    def export(self) -> None:
        """Hand the counts since the last time to Ray's exporter."""
        latencies: dict[Tags, Sequence[int]] = {}
        processing = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        for path, counted in self._server.take_counts():
            method = path or UNKNOWN_METHOD
            status, number = STATUS_NAMES[counted.status], counted.total
            buckets = self._of_serve(counted.buckets)
            if self.durations is not None:
                self.durations.add(path, status, counted.buckets, counted.seconds)
            caller = "deployment" if counted.is_inner else "client"
            self._calls.inc(number, {"method": method, "status_code": status, "caller": caller})
            error = {"error_code": status, "method": method}
            if not counted.is_inner:
                tags = {"method": method, "status_code": status, **self._of_application}
                self._requests.inc(number, tags)
                latencies[tuple(tags.items())] = buckets
                if counted.status:
                    self._errors.inc(number, {**error, **self._of_application})
            if counted.status:
                self._deployment_errors.inc(number, {**error, **self._of_deployment})
                self._failed.inc(number, {"exception_type": status})
            else:
                self._processed.inc(number)
            processing = [old + new for old, new in zip(processing, buckets, strict=True)]
        for labels, value in self._latencies.observations(latencies):
            self._latency.observe(value, dict(labels))
        for _, value in self._processing_times.observations({(): processing}):
            self._processing.observe(value)
        host = self._server.host
        for path, direction, messages, size in self._server.take_messages():
            self._messages.inc(messages, {"method": path, "direction": direction})
            if size:  # messages may be empty
                self._bytes.inc(size, {"method": path, "direction": direction})
        for (path, code, reason), number in host.take_rejected().items():
            self._rejected.inc(number, {"method": path, "status_code": STATUS_NAMES[code], "reason": reason})
        for model, number in host.models.take().items():
            self._models.inc(number, {"model": model})
        for waited in host.waits.take():
            for _, value in self._wait_times.observations({(): self._of_serve(waited.buckets)}):
                self._waits.observe(value)
        self._ongoing.set(host.ongoing, self._node)
        self._queued.set(host.count_queued())
        self._queued_of_serve.set(host.count_queued())
        self._export_current()
        self._export_retries()

    def _export_current(self) -> None:
        current = self._server.count_current()
        self._seen_current |= current.keys()
        for method, state in self._seen_current:  # else the last value would stay
            self._current.set(current[method, state], {"method": method, "state": state})

    def _export_retries(self) -> None:
        retries = count_retries()
        for (application, deployment, reason), number in (retries - self._retries_before).items():
            labels = {"application": application, "deployment": deployment, "reason": reason}
            self._retries.inc(number, labels)
        self._retries_before = retries

    def _of_serve(self, counted: Sequence[int]) -> list[int]:
        """Return numbers of calls by Ray Serve's buckets."""
        buckets = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        for index, number in zip(self._bucket, counted, strict=True):
            buckets[index] += number
        return buckets

"""Rates and quantiles of calls, from two readings of the metrics that Ray exports. Plain values, without Ray.

The metrics are those of docs/reference/metrics.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

#: One series: its node, its name, and its labels.
Series: TypeAlias = tuple[str, str, frozenset[tuple[str, str]]]

REQUESTS, LATENCY = "ray_serve_num_grpc_requests_total", "ray_serve_grpc_request_latency_ms_bucket"
ONGOING, QUEUED = "ray_serve_num_ongoing_grpc_requests", "ray_sdk_replica_queued_grpc_requests"
PROCESSED, FAILED = "ray_serve_deployment_request_counter_total", "ray_serve_deployment_error_counter_total"
CURRENT = "ray_sdk_replica_current_requests"
PROCESSING = "ray_serve_deployment_processing_latency_ms_bucket"
REJECTED = "ray_sdk_ingress_rejected_requests_total"
#: Names of the series that :func:`measure` reads.
NAMES = frozenset({REQUESTS, LATENCY, ONGOING, QUEUED, CURRENT, PROCESSED, FAILED, PROCESSING, REJECTED})


@dataclass(frozen=True, slots=True)
class Reading:
    """The metrics of all nodes at one moment.

    Attributes:
        at: Monotonic seconds.
        values: The series.
        nodes: Addresses of the nodes that answered.
        unreachable: Address of each node that did not answer, with the reason.
    """

    at: float
    values: Mapping[Series, float]
    nodes: frozenset[str]
    unreachable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """Calls of clients to one method.

    Attributes:
        application: Its application.
        method: Its path.
        calls_per_s: Calls that have ended in a second.
        p50_ms: Median of their durations in the replica; None if it is not known.
        p99_ms: Their 99th percentile.
        errors_per_s: Calls with another status than OK in a second, by the name of the status.
        ongoing: Calls of clients and of other deployments whose handler runs.
        queued: Those that wait for a handler to end.
    """

    application: str
    method: str
    calls_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    errors_per_s: Mapping[str, float]
    ongoing: int
    queued: int


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """Calls of clients and of other deployments to one replica.

    Attributes:
        application: Its application.
        deployment: Its deployment.
        replica: Its unique id.
        calls_per_s: Calls that have ended in a second.
        p50_ms: Median of their durations; None if it is not known.
        p99_ms: Their 99th percentile.
        errors_per_s: Calls with another status than OK in a second, by the name of the status.
        ongoing: Calls whose handler runs; None for a replica that has ended.
        queued: Calls that wait for a handler to end; None for a replica that has ended.
    """

    application: str
    deployment: str
    replica: str
    calls_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    errors_per_s: Mapping[str, float]
    ongoing: int | None
    queued: int | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Calls that no replica has answered, for one reason."""

    status_code: str
    reason: str
    calls_per_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Rates and quantiles between two readings.

    Attributes:
        seconds: Time between them.
        methods: Methods that were called or run, the busiest first.
        replicas: Replicas that run or were called, by application and deployment.
        rejected: Calls that no replica has answered, the most frequent first.
        unreachable: Address of each node without metrics, with the reason.
    """

    seconds: float
    methods: tuple[MethodFigures, ...]
    replicas: tuple[ReplicaFigures, ...]
    rejected: tuple[Rejected, ...]
    unreachable: Mapping[str, str]


def measure(before: Reading, after: Reading) -> Figures:
    """Return the figures between two readings.

    Args:
        before: The earlier one.
        after: The later one.
    """
    seconds = max(after.at - before.at, 1e-9)
    rates = _Rates(before, after, seconds)
    return Figures(seconds, _methods(rates, after), _replicas(rates, after), _rejected(rates), after.unreachable)


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Return a quantile of a histogram, interpolated as ``histogram_quantile`` of Prometheus does.

    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile

    Args:
        share: From 0 to 1.
        buckets: Upper bound → number of values up to it.

    Example:
        >>> quantile(0.5, {1.0: 0, 2.0: 10, float("inf"): 10})
        1.5
        >>> quantile(0.99, {1.0: 0, float("inf"): 10})
        1.0
        >>> print(quantile(0.5, {1.0: 0, float("inf"): 0}))
        None
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0
    if not total:
        return None
    low, below = 0.0, 0.0
    for bound in bounds[:-1]:
        if buckets[bound] >= share * total:
            inside = buckets[bound] - below
            return low + (bound - low) * (share * total - below) / inside if inside else bound
        low, below = bound, buckets[bound]
    return low


class _Rates:
    """Growth of each counter in a second."""

    def __init__(self, before: Reading, after: Reading, seconds: float) -> None:
        self._by_name: defaultdict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for series, value in after.values.items():
            node, name, labels = series
            if node not in before.nodes:
                continue  # what it counted before is not of these seconds
            old = before.values.get(series, 0.0)
            grown = value - old if value >= old else value  # the process that counts was replaced
            if grown:
                self._by_name[name].append((dict(labels), grown / seconds))

    def grouped(self, name: str, *keys: str) -> dict[tuple[str, ...], float]:
        """Return the rates of a metric, summed over all labels but these."""
        sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for labels, rate in self._by_name[name]:
            sums[tuple(labels.get(key, "") for key in keys)] += rate
        return sums

    def quantiles(self, name: str, *keys: str) -> dict[tuple[str, ...], tuple[float | None, float | None]]:
        """Return the median and the 99th percentile of a histogram, for each value of these labels."""
        buckets: defaultdict[tuple[str, ...], dict[float, float]] = defaultdict(dict)
        for (*group, bound), rate in self.grouped(name, *keys, "le").items():
            buckets[tuple(group)][float(bound)] = rate
        return {group: (quantile(0.5, found), quantile(0.99, found)) for group, found in _filled(buckets)}


def _filled(
    histograms: Mapping[tuple[str, ...], Mapping[float, float]],
) -> Iterable[tuple[tuple[str, ...], Mapping[float, float]]]:
    """Yield histograms with all bounds: those below the first value did not grow, so they are missing."""
    bounds = {bound for buckets in histograms.values() for bound in buckets} | {float("inf")}
    for group, buckets in histograms.items():
        yield group, {bound: buckets.get(bound, 0.0) for bound in bounds}


def _methods(rates: _Rates, after: Reading) -> tuple[MethodFigures, ...]:
    keys = ("application", "method")
    quantiles = rates.quantiles(LATENCY, *keys)
    calls: defaultdict[tuple[str, ...], float] = defaultdict(float)
    errors: defaultdict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for (*group, status), rate in rates.grouped(REQUESTS, *keys, "status_code").items():
        key = tuple(group)
        calls[key] += rate
        if status != "OK":
            errors[key][status] = rate
    current: Counter[tuple[str, ...]] = Counter()
    for labels, value in _gauge(after, CURRENT):
        current[labels.get("state", ""), *(labels.get(key, "") for key in keys)] += int(value)
    found = [
        MethodFigures(
            key[0],
            key[1],
            calls[key],
            *quantiles.get(key, (None, None)),
            dict(sorted(errors[key].items())),
            current["ongoing", *key],
            current["queued", *key],
        )
        for key in calls.keys()
        | {(application, method) for (_, application, method), value in current.items() if value}
    ]
    return tuple(sorted(found, key=lambda each: (-each.calls_per_s, each.application, each.method)))


def _replicas(rates: _Rates, after: Reading) -> tuple[ReplicaFigures, ...]:
    keys = ("application", "deployment", "replica")
    quantiles = rates.quantiles(PROCESSING, *keys)
    calls: defaultdict[tuple[str, ...], float] = defaultdict(float, rates.grouped(PROCESSED, *keys))
    errors: defaultdict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for (*group, status), rate in rates.grouped(FAILED, *keys, "exception_type").items():
        key = tuple(group)
        calls[key] += rate
        errors[key][status] = rate
    # Ray Serve's gauge of ongoing requests has no label of the replica; both gauges have that of its process.
    ongoing = {labels.get("WorkerId"): int(value) for labels, value in _gauge(after, ONGOING)}
    running: dict[tuple[str, ...], tuple[int | None, int]] = {
        tuple(labels.get(key, "") for key in keys): (ongoing.get(labels.get("WorkerId")), int(value))
        for labels, value in _gauge(after, QUEUED)
    }
    return tuple(
        ReplicaFigures(
            key[0],
            key[1],
            key[2],
            calls[key],
            *quantiles.get(key, (None, None)),
            dict(sorted(errors[key].items())),
            *running.get(key, (None, None)),
        )
        for key in sorted(calls.keys() | running.keys())
    )


def _rejected(rates: _Rates) -> tuple[Rejected, ...]:
    found = [
        Rejected(status, reason, rate)
        for (status, reason), rate in rates.grouped(REJECTED, "status_code", "reason").items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.calls_per_s, each.reason, each.status_code)))


def _gauge(reading: Reading, name: str) -> Iterable[tuple[dict[str, str], float]]:
    return [(dict(labels), value) for (_, found, labels), value in reading.values.items() if found == name]

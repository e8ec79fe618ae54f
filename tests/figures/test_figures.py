"""Rates and quantiles between two readings of the metrics."""

from __future__ import annotations

import pytest

from sdk._figures.figures import (
    CURRENT,
    FAILED,
    LATENCY,
    ONGOING,
    PROCESSED,
    PROCESSING,
    QUEUED,
    REJECTED,
    REQUESTS,
    Reading,
    Series,
    measure,
)
from tests.serve.test_metrics_reference import exported

CALL = "/greet.Greeter/Hello"
METHOD = {"application": "greeter", "method": CALL}
REPLICA = {"application": "greeter", "deployment": "Greeter", "replica": "abc"}


def series(name: str, node: str = "a", **labels: str) -> Series:
    return node, name, frozenset(labels.items())


def reading(at: float, values: dict[Series, float], *nodes: str) -> Reading:
    return Reading(at, values, frozenset(nodes or ("a",)))


def test_each_metric_that_is_read_is_exported() -> None:
    suffixes = {"counter": "_total", "histogram": "_bucket", "gauge": ""}
    known = {f"ray_{name}{suffixes[metric.kind]}" for name, metric in exported().items()}
    assert {REQUESTS, LATENCY, CURRENT, ONGOING, QUEUED, PROCESSED, FAILED, PROCESSING, REJECTED} <= known


def test_calls_of_a_method_by_status() -> None:
    ok, lost = series(REQUESTS, **METHOD, status_code="OK"), series(REQUESTS, **METHOD, status_code="NOT_FOUND")
    (found,) = measure(reading(0, {ok: 100}), reading(10, {ok: 150, lost: 20})).methods
    assert (found.application, found.method) == ("greeter", CALL)
    assert (found.calls_per_s, found.errors_per_s) == (7.0, {"NOT_FOUND": 2.0})
    assert (found.p50_ms, found.p99_ms) == (None, None)


def test_quantiles_are_of_the_calls_between_the_readings_whatever_their_status() -> None:
    def buckets(status: str, *numbers: float) -> dict[Series, float]:
        bounds = ("1.0", "10.0", "100.0", "+Inf")
        return {
            series(LATENCY, **METHOD, status_code=status, le=bound): number
            for bound, number in zip(bounds, numbers, strict=True)
        }

    called = series(REQUESTS, **METHOD, status_code="OK")
    before = {called: 0.0, **buckets("OK", 900, 900, 900, 900)}
    after = {called: 10.0, **buckets("OK", 900, 905, 905, 905), **buckets("ABORTED", 0, 0, 5, 5)}
    (found,) = measure(reading(0, before), reading(10, after)).methods
    assert found.p50_ms == pytest.approx(10.0)
    assert found.p99_ms == pytest.approx(10 + 90 * 0.98)


def test_a_replica_has_its_calls_and_errors_and_those_that_run_and_wait() -> None:
    after = {
        series(PROCESSED, **REPLICA): 30.0,
        series(FAILED, **REPLICA, exception_type="INTERNAL"): 10.0,
        series(PROCESSING, **REPLICA, le="1.0"): 40.0,
        series(PROCESSING, **REPLICA, le="+Inf"): 40.0,
        series(QUEUED, **REPLICA, WorkerId="w1"): 3.0,
        series(ONGOING, node_id="n", WorkerId="w1"): 5.0,
        series(ONGOING, node_id="n", WorkerId="w2"): 7.0,
    }
    (found,) = measure(reading(0, {}), reading(10, after)).replicas
    assert (found.deployment, found.replica, found.calls_per_s) == ("Greeter", "abc", 4.0)
    assert (found.errors_per_s, found.ongoing, found.queued) == ({"INTERNAL": 1.0}, 5, 3)
    assert found.p50_ms == pytest.approx(0.5)


def test_a_replica_that_has_ended_is_shown_while_its_calls_are_recent() -> None:
    counted = series(PROCESSED, **REPLICA)
    (found,) = measure(reading(0, {counted: 1}), reading(10, {counted: 2})).replicas
    assert (found.ongoing, found.queued) == (None, None)
    assert not measure(reading(0, {counted: 2}), reading(10, {counted: 2})).replicas


def test_a_counter_that_begins_again_counts_from_zero() -> None:
    counted = series(REQUESTS, **METHOD, status_code="OK")
    (found,) = measure(reading(0, {counted: 1000}), reading(10, {counted: 50})).methods
    assert found.calls_per_s == 5.0


def test_what_a_node_counted_before_it_could_be_read_is_no_rate() -> None:
    here, there = (series(REQUESTS, node, **METHOD, status_code="OK") for node in "ab")
    (found,) = measure(reading(0, {here: 0}, "a"), reading(10, {here: 10, there: 9999}, "a", "b")).methods
    assert found.calls_per_s == 1.0


def test_calls_that_no_replica_answered_by_reason() -> None:
    after = {
        series(REJECTED, reason="no_route", status_code="NOT_FOUND", node_id="1"): 10.0,
        series(REJECTED, reason="no_route", status_code="NOT_FOUND", node_id="2"): 10.0,
        series(REJECTED, reason="timeout", status_code="DEADLINE_EXCEEDED", node_id="1"): 50.0,
    }
    found = measure(reading(0, {}), reading(10, after)).rejected
    assert [(each.reason, each.status_code, each.calls_per_s) for each in found] == [
        ("timeout", "DEADLINE_EXCEEDED", 5.0),
        ("no_route", "NOT_FOUND", 2.0),
    ]


def test_a_method_has_the_calls_that_run_and_wait_on_all_replicas() -> None:
    after = {
        series(CURRENT, "a", **REPLICA, method=CALL, state="ongoing"): 2.0,
        series(CURRENT, "b", **REPLICA, method=CALL, state="ongoing"): 3.0,
        series(CURRENT, "b", **REPLICA, method=CALL, state="queued"): 4.0,
        series(CURRENT, **REPLICA, method="/greet.Greeter/Idle", state="ongoing"): 0.0,
    }
    (found,) = measure(reading(0, {}, "a", "b"), reading(10, after, "a", "b")).methods
    assert (found.method, found.calls_per_s, found.ongoing, found.queued) == (CALL, 0.0, 5, 4)


def test_the_busiest_method_is_first() -> None:
    after = {
        series(REQUESTS, application="x", method=method, status_code="OK"): number
        for method, number in (("/a/A", 1.0), ("/b/B", 9.0), ("/c/C", 1.0))
    }
    assert [each.method for each in measure(reading(0, {}), reading(1, after)).methods] == ["/b/B", "/a/A", "/c/C"]

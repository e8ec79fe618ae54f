"""The autoscaling policy, and the number of calls that may wait for a first replica."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from sdk._serve.autoscaling import ONGOING_CALLS, max_waiting, ongoing_calls_policy, scales_to_zero

CONFIG = AutoscalingConfig(min_replicas=0, max_replicas=10, target_ongoing_requests=4)


def wanted(calls: list[int], *, running: int, target: int, handles: float = 0.0) -> float:
    told: Any = {ONGOING_CALLS: {f"r{number}": float(count) for number, count in enumerate(calls)}}
    context = AutoscalingContext(
        deployment_id=None,  # type: ignore[arg-type]  # the policy does not look
        deployment_name="D",
        app_name="app",
        current_num_replicas=running,
        target_num_replicas=target,
        running_replicas=[],
        total_num_requests=handles,
        total_queued_requests=0.0,
        aggregated_metrics=told,
        raw_metrics={},
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=10,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=CONFIG,
    )
    return ongoing_calls_policy(context)[0]


@pytest.mark.parametrize(
    ("calls", "running", "target", "replicas"),
    [
        ([8, 4], 2, 2, 3),
        ([0], 1, 1, 0),
        ([], 0, 0, 0),
        ([], 0, 1, 1),  # one is being started
        ([], 1, 1, 1),  # it has started, and has not reported its calls yet
        ([0, 0], 3, 3, 3),
        ([30], 2, 2, 7.5),
    ],
)
def test_each_replica_gets_its_target(calls: list[int], running: int, target: int, replicas: float) -> None:
    assert wanted(calls, running=running, target=target) == replicas


def test_requests_through_handles_count_too() -> None:
    assert wanted([4], running=1, target=1, handles=4.0) == 2


@pytest.mark.parametrize(
    ("autoscaling", "queued", "most"),
    [
        (None, 5, 5),
        (None, 0, 0),
        (AutoscalingConfig(min_replicas=1), 5, 5),
        (AutoscalingConfig(min_replicas=0), 5, 5),
        (AutoscalingConfig(min_replicas=0), -1, 10_000),
    ],
)
def test_as_many_calls_wait_for_a_replica_as_may_be_queued(autoscaling: Any, queued: int, most: int) -> None:
    config = SimpleNamespace(autoscaling_config=autoscaling, max_queued_requests=queued)
    assert max_waiting(config) == most
    assert scales_to_zero(config) == (autoscaling is not None and autoscaling.min_replicas == 0)

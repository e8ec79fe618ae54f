"""Reports of a replica's calls to Ray Serve's default autoscaling policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from sdk._serve import autoscaling_metrics
from sdk._serve.autoscaling_metrics import report_calls
from tests.support.virtual_time import in_virtual_time

DEFAULT = AutoscalingConfig(metrics_interval_s=1.0)
OURS = AutoscalingConfig(policy=AutoscalingPolicy(policy_function="sdk._serve.autoscaling:ongoing_calls_policy"))


@in_virtual_time
async def test_calls_are_reported_until_another_policy_scales_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(autoscaling_config=DEFAULT)
    reports: list[float] = []
    loop = asyncio.get_running_loop()

    def report(controller: Any, points: Sequence[tuple[float, float]]) -> None:
        assert controller == "controller"
        reports.append(points[-1][1])

    async def find(function: Any) -> str:
        return "controller"

    monkeypatch.setattr(autoscaling_metrics, "deployment_config", lambda: config)
    monkeypatch.setattr(autoscaling_metrics, "report_ongoing_calls", report)
    monkeypatch.setattr(asyncio, "to_thread", find)
    monkeypatch.setattr(autoscaling_metrics, "time", SimpleNamespace(time=lambda: 1e9 + loop.time()))
    task = asyncio.create_task(report_calls(lambda: 7))
    await asyncio.sleep(5.2)
    assert reports == [7.0] * 5
    config.autoscaling_config = OURS
    await task
    assert (loop.time(), len(reports)) == (5.5, 5), "a replica without reports has no timer for them"

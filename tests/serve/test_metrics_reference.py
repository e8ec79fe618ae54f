"""The reference of metrics names each metric that the code exports, with its type and its labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdk._ingress import controller_metrics, proxy_metrics
from sdk._serve import call_metrics
from tests.support.cluster import ROOT
from tests.support.fake_metrics import NODE, Recorded, record_metrics

REFERENCE = (ROOT / "docs/reference/metrics.md").read_text()


def exported() -> dict[str, Recorded]:
    """Return each metric that the code makes, by name."""
    with pytest.MonkeyPatch.context() as patch:
        modules: tuple[Any, ...] = (call_metrics, proxy_metrics, controller_metrics)
        of_replica, of_proxy, of_controller = (record_metrics(patch, module) for module in modules)
        call_metrics.CallMetrics(SimpleNamespace(), application="a", deployment="d", replica="r")  # type: ignore[arg-type]
        proxy_metrics.ProxyMetrics("n", Path("admin.sock"), lambda: 1)
        controller_metrics.ControllerMetrics()
    return {**of_replica, **of_proxy, **of_controller}


def documented() -> dict[str, tuple[str, set[str]]]:
    """Return type and labels of each metric in the tables of the reference, by name."""
    found = {}
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", REFERENCE, re.MULTILINE)
    of_proxies = REFERENCE.partition("## The ingress")[2].partition("The ingress controller exports")[0]
    for name, kind, labels in rows:
        more = set(NODE) if f"`{name}` |" in of_proxies else set()
        found[name] = (kind, set(re.findall(r"`(\w+)`", labels)) | more)
    return found


def test_the_reference_has_type_and_labels_of_each_metric() -> None:
    assert documented() == {name: (metric.kind, set(metric.labels)) for name, metric in exported().items()}


def test_the_queries_name_metrics_that_exist() -> None:
    queried = {
        re.sub(r"^ray_|_(total|bucket)$", "", name)
        for block in re.findall(r"```promql\n(.*?)```", REFERENCE, re.DOTALL)
        for name in re.findall(r"ray_\w+", block)
    }
    assert queried
    assert queried <= exported().keys()

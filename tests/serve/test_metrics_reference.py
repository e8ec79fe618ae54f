"""The reference of metrics names each metric that the code exports, with its type and its labels, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sdk._ingress.proxy_metrics import ENVOY_COUNTERS
from tests.support.cluster import ROOT

REFERENCE = (ROOT / "docs/reference/metrics.md").read_text()
SOURCES = ("sdk/_serve/call_metrics.py", "sdk/_ingress/proxy_metrics.py")


def exported() -> dict[str, str]:
    """Return the type of each metric that the code makes, by name."""
    found = {f"sdk_ingress_{name}": "counter" for name in ENVOY_COUNTERS}
    for source in SOURCES:
        for node in ast.walk(ast.parse(Path(ROOT, source).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                kind = node.func.id.lower()
                if kind in ("counter", "gauge", "histogram") and isinstance(node.args[0], ast.Constant):
                    found[node.args[0].value] = kind
    return found


def test_the_reference_names_each_metric_with_its_type() -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|", REFERENCE, re.MULTILINE))
    assert documented == exported()


def test_the_queries_name_metrics_that_exist() -> None:
    queried = {
        re.sub(r"^ray_|_(total|bucket)$", "", name)
        for block in re.findall(r"```promql\n(.*?)```", REFERENCE, re.DOTALL)
        for name in re.findall(r"ray_\w+", block)
    }
    assert queried
    assert queried <= exported().keys()

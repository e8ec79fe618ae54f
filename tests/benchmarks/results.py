"""Results of a work on each server."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from tests.benchmarks.load import Run
from tests.benchmarks.works import BARE, OURS, Work


@dataclass(frozen=True)
class Result:
    """The figures of one work on each server, round by round."""

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
        """Return the ratios of our throughput to another server's, round by round."""
        return [ours.rate / theirs.rate for ours, theirs in zip(self.runs[OURS], self.runs[server], strict=True)]

    def line(self) -> str:
        """Return the result in one line."""
        rates = ", ".join(f"{server} {self.rate(server):,.0f}" for server in self.runs)
        ratio = f", ratio {statistics.median(self.ratios(BARE)):.2f}" if {OURS, BARE} <= self.runs.keys() else ""
        return f"{self.work.name}: {self.work.unit}/s {rates}{ratio}"

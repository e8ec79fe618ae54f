"""Charts: throughput of each work relative to grpc.aio, and the growth of the cost of a call."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from tests.benchmarks.results import Result
from tests.benchmarks.works import BARE, OURS

matplotlib.use("Agg")
from matplotlib import pyplot

_COLOURS = {OURS: "#3b6ea5", BARE: "#c07830"}


def ratio_chart(results: list[Result], path: Path) -> None:
    """Draw our throughput relative to grpc.aio, for each work that both do."""
    compared = [result for result in results if {OURS, BARE} <= result.runs.keys()]
    ratios = [result.ratios(BARE) for result in compared]
    medians = [statistics.median(each) for each in ratios]
    errors = [
        [m - min(r) for m, r in zip(medians, ratios, strict=True)],
        [max(r) - m for m, r in zip(medians, ratios, strict=True)],
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(compared) + 1.2), layout="constrained")
    axes.barh([result.work.name for result in compared], medians, xerr=errors, color=_COLOURS[OURS], ecolor="#888888")
    axes.axvline(1, color="#333333", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("times the throughput of a bare grpc.aio server\n(median of the rounds; lines: lowest to highest)")
    for index, median in enumerate(medians):
        axes.annotate(f" {median:.2f}", (0, index), va="center", color="white")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def growth_chart(results: list[Result], path: Path) -> None:
    """Draw throughput over streams, connections, replicas and applications, and CPU time over the payload."""
    figure, rows = pyplot.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    panels = iter(rows.flat)
    small = [r for r in results if r.work.method == "Unary" and _bytes(r) < 1000 and not r.work.idle_connections]
    plain = [r for r in small if not r.work.setting]
    _lines(next(panels), "streams on one connection", _at(plain, lambda r: r.work.streams, connections=1), _rate)
    _lines(next(panels), "connections of one stream", _at(plain, lambda r: r.work.connections, streams=1), _rate)
    for count in ("replicas", "apps"):
        chosen = [(r.work.setting[count], r) for r in small if count in r.work.setting]
        one = [(1, r) for r in small if r.work.setting.get("replicas") == 1]
        label = {"replicas": "replicas", "apps": "applications in the routing table"}[count]
        _lines(next(panels), label, sorted({**dict(one), **dict(chosen)}.items()), _rate)
    for name, direction in (("up", "request"), ("down", "response")):
        chosen = [(_bytes(r), r) for r in results if r.work.name.startswith("unary,") and r.work.name.endswith(name)]
        unary = [(_bytes(r), r) for r in plain if (r.work.streams, r.work.connections) == (32, 1)]
        axes = next(panels)
        _lines(axes, f"bytes in the {direction}", sorted(unary + chosen, key=lambda each: each[0]), _server_cpu)
        axes.set_yscale("log")
        axes.set_ylabel("CPU µs a call, all server processes")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bytes(result: Result) -> int:
    (message, *_), work = result.work.messages, result.work
    return max(len(message.SerializeToString()), work.response_bytes)


def _short(number: int) -> str:
    for size, unit in ((1 << 20, "Mi"), (1 << 10, "Ki")):
        if number >= size:
            return f"{number / size:.0f} {unit}"
    return str(number)


def _rate(result: Result, server: str) -> float:
    return result.rate(server)


def _server_cpu(result: Result, server: str) -> float:
    return sum(us for process, us in result.cpu_us(server).items() if process != "client")


def _at(results: Sequence[Result], key: Callable[[Result], int], **fixed: int) -> list[tuple[int, Result]]:
    chosen = [r for r in results if all(getattr(r.work, name) == value for name, value in fixed.items())]
    return sorted(((key(result), result) for result in chosen), key=lambda each: each[0])


def _lines(
    axes: Any, label: str, points: Sequence[tuple[int, Result]], figure_of: Callable[[Result, str], float]
) -> None:
    for server in (OURS, BARE):
        mine = [(x, figure_of(result, server)) for x, result in points if server in result.runs]
        if mine:
            axes.plot(*zip(*mine, strict=True), "o-", color=_COLOURS[server], label=server)
    axes.set_xscale("log")
    if points:
        axes.set_xticks([x for x, _ in points], [_short(x) for x, _ in points])
        axes.minorticks_off()
        axes.legend()
    axes.set_xlabel(label)
    axes.set_ylabel("calls/s")
    axes.set_ylim(bottom=0 if figure_of is _rate else None)

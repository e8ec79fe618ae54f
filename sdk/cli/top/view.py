"""Presentation of the figures: tables for people, and JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from sdk._figures.figures import Figures


def as_json(figures: Figures) -> str:
    """Return the figures as one JSON object."""
    return json.dumps(dataclasses.asdict(figures), indent=2)


def as_tables(figures: Figures) -> RenderableType:
    """Return the figures as tables."""
    methods = _table("APPLICATION", "METHOD", "CALLS/S", "P50 MS", "P99 MS", "ONGOING", "QUEUED", "ERRORS/S")
    for method in figures.methods:
        methods.add_row(
            method.application,
            method.method,
            f"{method.calls_per_s:.1f}",
            _milliseconds(method.p50_ms),
            _milliseconds(method.p99_ms),
            str(method.ongoing),
            str(method.queued),
            _errors(method.errors_per_s),
        )
    replicas = _table("APPLICATION", "REPLICA", "CALLS/S", "P50 MS", "P99 MS", "ONGOING", "QUEUED", "ERRORS/S")
    for replica in figures.replicas:
        replicas.add_row(
            replica.application,
            f"{replica.deployment}/{replica.replica}",
            f"{replica.calls_per_s:.1f}",
            _milliseconds(replica.p50_ms),
            _milliseconds(replica.p99_ms),
            _number(replica.ongoing),
            _number(replica.queued),
            _errors(replica.errors_per_s),
        )
    parts: list[RenderableType] = [Text(f"Calls of the last {figures.seconds:.0f} s", style="bold"), Text()]
    parts.append(methods if figures.methods else Text("no calls of clients in this time; Ray exports every 10 s"))
    if figures.replicas:
        parts += [Text(), replicas]
    if figures.rejected:
        rejected = _table("NO REPLICA ANSWERED", "STATUS", "CALLS/S")
        for each in figures.rejected:
            rejected.add_row(each.reason, each.status_code, f"{each.calls_per_s:.1f}")
        parts += [Text(), rejected]
    parts += [
        Text(f"no metrics of {address}: {reason}", style="yellow")
        for address, reason in sorted(figures.unreachable.items())
    ]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_text = column in ("APPLICATION", "METHOD", "REPLICA", "ERRORS/S", "NO REPLICA ANSWERED", "STATUS")
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    return table


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _errors(rates: Mapping[str, float]) -> Text:
    return Text(", ".join(f"{status} {rate:.1f}" for status, rate in rates.items()), style="yellow")

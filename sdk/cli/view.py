"""How the state of applications and proxies is shown: as tables in a terminal, as plain lines in a pipe, as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from sdk.serve.run import Status

_GOOD = ("RUNNING", "HEALTHY", "serving")


def as_json(status: Status) -> str:
    """Return the status as one JSON object."""
    return json.dumps({"healthy": status.is_healthy, **dataclasses.asdict(status)}, indent=2)


def as_text(status: Status) -> str:
    """Return the status as plain lines, one for each deployment and proxy."""
    lines = []
    for application in status.applications:
        lines.append(f"application {application.name}: {application.state} {_one_line(application.message)}".rstrip())
        lines += [
            f"  deployment {d.name}: {d.state}, {_count(d.replicas, 'replica')}"
            + (", scaled to zero, wakes on a call" if d.wakes else "")
            + (f", serves {', '.join(d.services)}" if d.services else ", reached by handles")
            for d in application.deployments
        ]
    lines += [
        f"proxy {proxy.address} on node {proxy.node_id[:8]}: {_proxy_state(proxy.up_to_date, proxy.problem)}"
        for proxy in status.proxies
    ]
    if status.problem:
        lines.append(f"problem: {status.problem}")
    return "\n".join(lines) or "nothing runs"


def as_tables(status: Status, footer: str = "") -> RenderableType:
    """Return the status as tables for a terminal.

    Args:
        status: The status.
        footer: A line below the tables.
    """
    applications = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("APPLICATION", "DEPLOYMENT", "STATE", "REPLICAS", "SERVICES"):
        applications.add_column(column)
    for application in status.applications:
        if not application.deployments:
            applications.add_row(application.name, "", _coloured(application.state), "", _one_line(application.message))
        for index, deployment in enumerate(application.deployments):
            applications.add_row(
                application.name if index == 0 else "",
                deployment.name,
                _coloured(deployment.state),
                f"{deployment.replicas}, wakes on a call" if deployment.wakes else str(deployment.replicas),
                ", ".join(deployment.services) or Text("reached by handles", style="dim"),
            )
    proxies = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("PROXY", "NODE", "STATE"):
        proxies.add_column(column)
    for proxy in status.proxies:
        state = _proxy_state(proxy.up_to_date, proxy.problem)
        proxies.add_row(proxy.address, proxy.node_id[:8], _coloured(state))
    parts: list[RenderableType] = [applications, Text(), proxies]
    if status.problem:
        parts.append(Text(status.problem, style="yellow"))
    return Group(*parts, Text(), Text(footer, style="dim")) if footer else Group(*parts)


def _proxy_state(up_to_date: bool, problem: str) -> str:
    return problem or ("serving" if up_to_date else "updating")


def _coloured(state: str) -> Text:
    return Text(state, style="green" if state in _GOOD else "yellow")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _one_line(text: str) -> str:
    return " ".join(text.split())

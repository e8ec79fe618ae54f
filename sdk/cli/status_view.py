"""Presentation of the status: tables for a terminal, plain lines for a pipe, and JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from codegen.console import count, one_line

if TYPE_CHECKING:
    from sdk._serving_status import DeploymentStatus, ProxyStatus, Status

_GOOD = ("RUNNING", "HEALTHY", "serving")


def as_json(status: Status) -> str:
    """Return the status as one JSON object."""
    return json.dumps({"healthy": status.is_healthy, **dataclasses.asdict(status)}, indent=2)


def as_text(status: Status) -> str:
    """Return the status as plain lines, one for each deployment and proxy."""
    lines = []
    for application in status.applications:
        lines.append(f"application {application.name}: {application.state} {one_line(application.message)}".rstrip())
        lines += [
            f"  deployment {d.name}: {d.state}, {count(d.replicas, 'replica')}"
            + (", scaled to zero, wakes on a call" if d.scaled_to_zero else _unrouted(d))
            + (f", serves {', '.join(d.services)}" if d.services else ", reached by handles")
            for d in application.deployments
        ]
    lines += [
        f"proxy {proxy.address} on node {proxy.node_id[:8]}: {_proxy_state(proxy)}, "
        f"version {_versions(proxy, status)}, {_envoy(proxy)}"
        for proxy in status.proxies
    ]
    if status.problem:
        lines.append(f"problem: {status.problem}")
    return "\n".join(lines) or "nothing is running"


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
            applications.add_row(application.name, "", _coloured(application.state), "", one_line(application.message))
        for index, deployment in enumerate(application.deployments):
            applications.add_row(
                application.name if index == 0 else "",
                deployment.name,
                _coloured(deployment.state),
                f"{deployment.replicas}, wakes on a call"
                if deployment.scaled_to_zero
                else f"{deployment.replicas}{_unrouted(deployment)}",
                ", ".join(deployment.services) or Text("reached by handles", style="dim"),
            )
    proxies = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("PROXY", "NODE", "STATE", "VERSION", "ENVOY"):
        proxies.add_column(column)
    for proxy in status.proxies:
        proxies.add_row(
            proxy.address,
            proxy.node_id[:8],
            _coloured(_proxy_state(proxy)),
            _versions(proxy, status),
            str(proxy.envoy_pid or "-"),
        )
    parts: list[RenderableType] = [applications, Text(), proxies]
    if status.problem:
        parts.append(Text(status.problem, style="yellow"))
    return Group(*parts, Text(), Text(footer, style="dim")) if footer else Group(*parts)


def _proxy_state(proxy: ProxyStatus) -> str:
    return proxy.problem or ("serving" if proxy.up_to_date else "updating")


def _versions(proxy: ProxyStatus, status: Status) -> str:
    """Return the version of the routing table that an Envoy has acknowledged, and the newest one if they differ."""
    return str(proxy.version) if proxy.up_to_date else f"{proxy.version} of {status.version}"


def _envoy(proxy: ProxyStatus) -> str:
    return f"Envoy {proxy.envoy_pid}" if proxy.envoy_pid else "no Envoy"


def _unrouted(deployment: DeploymentStatus) -> str:
    return "" if deployment.is_routed else f", {len(deployment.endpoints)} routed to"


def _coloured(state: str) -> Text:
    return Text(state, style="green" if state in _GOOD else "yellow")

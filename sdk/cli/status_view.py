"""Presentation of the status: tables for a terminal, plain lines for a pipe, and JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from codegen.console import count

if TYPE_CHECKING:
    from sdk._serving_status import DeploymentStatus, ProxyStatus, Status

_WITHOUT_SERVICES = "no gRPC service: only handles and HTTP reach it; a class with @grpc_deployment would serve one"
_GOOD = ("RUNNING", "HEALTHY", "serving")


def as_json(status: Status) -> str:
    """Return the status as one JSON object."""
    return json.dumps({"healthy": status.is_healthy, **dataclasses.asdict(status)}, indent=2)


def as_text(status: Status, *, verbose: bool = False) -> str:
    """Return the status as plain lines, one for each deployment and proxy.

    Args:
        status: The status.
        verbose: Return Ray Serve's messages in full, with tracebacks.
    """
    lines = []
    for application in status.applications:
        lines.append(f"application {application.name}: {application.state}")
        lines += _message(application.message, "  ", verbose=verbose)
        for deployment in application.deployments:
            lines.append(
                f"  deployment {deployment.name}: {deployment.state}, {count(deployment.replicas, 'replica')}"
                + (", scaled to zero, wakes on a call" if deployment.scaled_to_zero else _unrouted(deployment))
                + (f", serves {', '.join(deployment.services)}" if deployment.services else ", reached by handles")
            )
            lines += _message(deployment.message, "    ", verbose=verbose)
        if application.lacks_services:
            lines.append(f"  {_WITHOUT_SERVICES}")
    lines += [
        f"proxy {proxy.address} on node {proxy.node_id[:8]}: {_proxy_state(proxy)}, "
        f"version {_versions(proxy, status)}, {_envoy(proxy)}"
        for proxy in status.proxies
    ]
    if status.problem:
        lines.append(f"problem: {status.problem}")
    return "\n".join(lines) or "nothing is running"


def as_tables(status: Status, footer: str = "", *, verbose: bool = False) -> RenderableType:
    """Return the status as tables for a terminal.

    Args:
        status: The status.
        footer: A line below the tables.
        verbose: As for :func:`as_text`.
    """
    applications = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("APPLICATION", "DEPLOYMENT", "STATE", "REPLICAS", "SERVICES"):
        applications.add_column(column)
    for application in status.applications:
        if not application.deployments:
            applications.add_row(application.name, "", _coloured(application.state), "", "")
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
    parts += [
        Text(f"{application.name}: {_WITHOUT_SERVICES}", style="yellow")
        for application in status.applications
        if application.lacks_services
    ]
    for application in status.applications:
        messages = {application.name: application.message}
        messages |= {f"{application.name}/{each.name}": each.message for each in application.deployments}
        for name, message in messages.items():
            lines = _message(message, "  ", verbose=verbose)
            parts += [Text(), Text(f"{name}:"), *(Text(line, style="yellow") for line in lines)] if lines else []
    if status.problem:
        parts.append(Text(status.problem, style="yellow"))
    return Group(*parts, Text(), Text(footer, style="dim")) if footer else Group(*parts)


def _message(message: str, indent: str, *, verbose: bool) -> list[str]:
    """Return the lines of a message of Ray Serve; without ``verbose``, only the exception of a traceback in it."""
    from sdk._serve.failures import raised_in

    lines = message.splitlines() if verbose else [raised_in(message)]
    return [f"{indent}{line}".rstrip() for line in lines if line.strip()]


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

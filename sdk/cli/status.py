"""``sdk status``: show applications, deployments and proxies, once or live with their calls."""

from __future__ import annotations

import json
from time import sleep
from typing import TYPE_CHECKING

import click

from sdk.errors import ClusterError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from sdk._figures.figures import Figures
    from sdk._serving_status import Status

# Seconds between two refreshes with --watch.
_REFRESH_S = 2.0


@click.command(epilog="\b\nExamples:\n  sdk status\n  sdk status --json | jq .healthy\n  sdk status --watch")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object; with --watch one a line.")
@click.option(
    "-w", "--watch", is_flag=True, help="Refresh every two seconds, with calls as in `sdk top`, until Ctrl-C."
)
@click.option(
    "--address", default=None, metavar="HOST:PORT", help="Ray cluster.  [default: RAY_ADDRESS, or a local cluster]"
)
@click.option("-v", "--verbose", is_flag=True, help="Show Ray Serve's messages in full, with tracebacks.")
def status(wants_json: bool, watch: bool, address: str | None, verbose: bool) -> None:
    """Show applications, deployments and proxies.

    Exit codes: 0 everything is healthy; 1 something is unhealthy, nothing is running, or no cluster was found; 130
    Ctrl-C with --watch.
    """
    from rich.console import Console

    from sdk._serve.api import status as read_status
    from sdk.cli.ray_cluster import connect
    from sdk.cli.status_view import as_json, as_tables, as_text
    from sdk.cli.waiting import Waiting

    with Waiting("Asking Ray …"):
        origin = connect(address)
        current = read_status()
    if not origin.is_named:
        click.echo(str(origin), err=True)
    console = Console()
    if watch:
        _watch(console, current, wants_json=wants_json, verbose=verbose)
    if wants_json:
        click.echo(as_json(current))
    elif console.is_terminal and (current.applications or current.proxies):
        console.print(as_tables(current, verbose=verbose))
    else:
        click.echo(as_text(current, verbose=verbose))
    if not current.is_healthy:
        raise click.exceptions.Exit(1)


def _watch(console: Console, current: Status, *, wants_json: bool, verbose: bool) -> None:
    """Show the status, and the calls of the last seconds, until Ctrl-C."""
    from rich.live import Live

    from sdk._figures import scrape
    from sdk._figures.recent import RecentCalls
    from sdk._serve.api import status as read_status

    calls, problem = RecentCalls(scrape.read_metrics), ""
    is_live = console.is_terminal and not wants_json
    with Live("", console=console, screen=True, auto_refresh=False) if is_live else _Printer() as display:
        while True:
            figures = calls.figures()
            if wants_json:
                shown: RenderableType = _as_line(current, problem, figures)
            else:
                shown = _as_page(current, problem or calls.problem, figures, in_terminal=is_live, verbose=verbose)
            display.update(shown, refresh=True)
            sleep(_REFRESH_S)
            try:
                current, problem = read_status(), ""
            except ClusterError as error:  # Ray's head, or a controller, is being restarted
                problem = str(error)


class _Printer:
    """Prints each refresh after the one before, where there is no terminal."""

    def __enter__(self) -> _Printer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, shown: RenderableType, *, refresh: bool) -> None:
        """Print a refresh."""
        if refresh:
            click.echo(str(shown))


def _as_line(current: Status, problem: str, figures: Figures | None) -> str:
    """Return a refresh as one line of JSON: the status, and ``calls`` with what ``sdk top --json`` prints, or null."""
    from sdk.cli.status_view import as_json
    from sdk.cli.top.view import as_json as calls_as_json

    document = json.loads(as_json(current))
    if problem:
        document |= {"healthy": False, "problem": problem}
    document["calls"] = None if figures is None else json.loads(calls_as_json(figures))
    return json.dumps(document)


def _as_page(
    current: Status, problem: str, figures: Figures | None, *, in_terminal: bool, verbose: bool
) -> RenderableType:
    from rich.console import Console, Group
    from rich.text import Text

    from sdk.cli.status_view import as_tables, as_text
    from sdk.cli.top.view import as_tables as calls_as_tables

    if in_terminal:
        parts: list[RenderableType] = [as_tables(current, verbose=verbose), Text()]
        parts += [Text(problem, style="yellow")] if problem else []
        return Group(*parts, calls_as_tables(figures) if figures is not None else Text("Counting calls …"))
    lines = [as_text(current, verbose=verbose), *([f"problem: {problem}"] if problem else [])]
    if figures is not None:
        plain = Console(width=200, no_color=True, force_terminal=False)
        with plain.capture() as printed:
            plain.print(calls_as_tables(figures))
        lines.append(printed.get())
    return "\n".join(lines)

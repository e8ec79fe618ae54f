"""``sdk top``: show calls, latencies, errors and queues, by method and by replica."""

from __future__ import annotations

from collections import deque
from time import sleep
from typing import TYPE_CHECKING

import click

from sdk.errors import ClusterError

if TYPE_CHECKING:
    from rich.console import Console

    from sdk._figures.figures import Reading

# Seconds between two readings in a terminal.
_REFRESH_S = 2.0
# Ray exports every ten seconds: in less there may be no change at all.
_LEAST_S = 10.0


@click.command(epilog="\b\nExamples:\n  sdk top\n  sdk top --json | jq '.methods[] | select(.p99_ms > 100)'")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--over",
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(min=_LEAST_S),
    help="Time that the figures are of.",
)
@click.option(
    "--address", default=None, metavar="HOST:PORT", help="Ray cluster.  [default: RAY_ADDRESS, or a local cluster]"
)
def top(wants_json: bool, over: float, address: str | None) -> None:
    """Show calls, latencies, errors and queues, by method and by replica.

    In a terminal until Ctrl-C; elsewhere once. Exit codes: 0 all nodes were read; 1 one was not, or no cluster was
    found.
    """
    from rich.console import Console

    from sdk._figures.figures import measure
    from sdk._figures.scrape import read_metrics
    from sdk.cli.ray_cluster import connect
    from sdk.cli.top.view import as_json, as_tables
    from sdk.cli.waiting import Waiting

    with Waiting("Asking Ray …"):
        origin = connect(address)
        first = read_metrics()
    if not origin.is_named:
        click.echo(str(origin), err=True)
    console = Console()
    if console.is_terminal and not wants_json:
        _watch(console, first, over)
        return
    with Waiting("Counting calls …"):
        sleep(over)
        figures = measure(first, read_metrics())
    if wants_json:
        click.echo(as_json(figures))
    else:
        Console(width=200).print(as_tables(figures))
    if figures.unreachable:
        raise click.exceptions.Exit(1)


def _watch(console: Console, first: Reading, over: float) -> None:
    """Show the figures of the last seconds until Ctrl-C, also while no node answers."""
    from rich.live import Live
    from rich.text import Text

    from sdk._figures.figures import measure
    from sdk._figures.scrape import read_metrics
    from sdk.cli.top.view import as_tables

    readings = deque([first])
    with Live("Counting calls …", console=console, screen=True, auto_refresh=False) as live:
        while True:
            sleep(_REFRESH_S)
            try:
                readings.append(read_metrics())
            except ClusterError as error:
                live.update(Text(str(error), style="yellow"), refresh=True)
                continue
            while len(readings) > 2 and readings[1].at <= readings[-1].at - over:
                readings.popleft()
            live.update(as_tables(measure(readings[0], readings[-1])), refresh=True)

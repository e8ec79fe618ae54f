"""``sdk status``: show applications, deployments and proxies."""

from __future__ import annotations

import click


@click.command(epilog="\b\nExamples:\n  sdk status\n  sdk status --json | jq .healthy")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--address", default=None, metavar="HOST:PORT", help="Ray cluster.  [default: RAY_ADDRESS, or a local cluster]"
)
@click.option("-v", "--verbose", is_flag=True, help="Show Ray Serve's messages in full, with tracebacks.")
def status(wants_json: bool, address: str | None, verbose: bool) -> None:
    """Show applications, deployments and proxies.

    Exit codes: 0 everything is healthy; 1 something is unhealthy, nothing is running, or no cluster was found.
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
    if wants_json:
        click.echo(as_json(current))
    elif console.is_terminal and (current.applications or current.proxies):
        console.print(as_tables(current, verbose=verbose))
    else:
        click.echo(as_text(current, verbose=verbose))
    if not current.is_healthy:
        raise click.exceptions.Exit(1)

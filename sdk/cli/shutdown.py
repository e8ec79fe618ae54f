"""``sdk shutdown``: shut down every application and the ingress."""

from __future__ import annotations

import click


@click.command(epilog="\b\nExamples:\n  sdk shutdown\n  sdk shutdown --address 10.0.0.5:6379")
@click.option(
    "--address", default=None, metavar="HOST:PORT", help="Ray cluster.  [default: RAY_ADDRESS, or a local cluster]"
)
def shutdown(address: str | None) -> None:
    """Shut down every application, Ray Serve and the ingress. Calls in flight finish first; Ray keeps running.

    Exit codes: 0 success; 1 no cluster was found.
    """
    from rich.console import Console

    from sdk._serve.api import shutdown as shut_down
    from sdk.cli.ray_cluster import connect

    with Console(stderr=True).status("Shutting down …"):
        connect(address)
        shut_down()
    click.echo("Applications, Ray Serve and the ingress are shut down. Ray is still running.")

"""``sdk shutdown``: end every application and the ingress."""

from __future__ import annotations

import click


@click.command(epilog="\b\nExamples:\n  sdk shutdown\n  sdk shutdown --address 10.0.0.5:6379")
@click.option(
    "--address", default=None, metavar="HOST:PORT", help="Ray cluster.  [default: RAY_ADDRESS, or one that runs here]"
)
def shutdown(address: str | None) -> None:
    """Shut down every application, Ray Serve and the ingress on a cluster. Calls in flight finish first; Ray stays.

    Exits with 0, or with 1 when there is no cluster.
    """
    from rich.console import Console

    from sdk._serve.api import shutdown as shut_down
    from sdk.cli.ray_cluster import connect

    with Console(stderr=True).status("Shutting down …"):
        connect(address)
        shut_down()
    click.echo("Everything is shut down; Ray still runs.")

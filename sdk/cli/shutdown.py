"""``sdk shutdown``: end every application and the ingress."""

from __future__ import annotations

import click


@click.command(epilog="Example:  sdk shutdown --address 10.0.0.5:6379")
@click.option("--address", default=None, help="Ray cluster to clean; by default RAY_ADDRESS or one that runs here.")
def shutdown(address: str | None) -> None:
    """Shut down every application, Ray Serve and the ingress on a cluster. Calls in flight finish first; Ray stays."""
    from sdk.cli.cluster import connect
    from sdk.serve.run import shutdown as shut_down

    connect(address)
    shut_down()
    click.echo("Everything is shut down; Ray still runs.")

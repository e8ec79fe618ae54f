"""``sdk shutdown``: shut down every application and the ingress."""

from __future__ import annotations

import click


@click.command(epilog="\b\nExamples:\n  sdk shutdown\n  sdk shutdown --address 10.0.0.5:6379")
@click.option(
    "--address", default=None, metavar="HOST:PORT", help="Ray cluster.  [default: RAY_ADDRESS, or a local cluster]"
)
@click.option("--yes", is_flag=True, help="Do not ask whether a cluster that somebody else started is the right one.")
def shutdown(address: str | None, yes: bool) -> None:
    """Shut down every application, Ray Serve and the ingress. Calls in flight finish first; Ray keeps running.

    Without --address, ask before anything is shut down on a cluster that this user started neither with `ray start` nor
    in this folder; where there is no terminal, refuse.

    Exit codes: 0 success; 1 no cluster was found, or it is not the right one.
    """
    from sdk._serve.api import shutdown as shut_down
    from sdk.cli.cluster_origin import require_consent
    from sdk.cli.ray_cluster import connect, quiet_logs
    from sdk.cli.waiting import Waiting

    with Waiting("Connecting to Ray …"):
        origin = connect(address)
    require_consent(origin, "Shut down every application, Ray Serve and the ingress", is_given=yes, remedy="")
    with Waiting("Shutting down …"), quiet_logs():
        shut_down()
    click.echo("Applications, Ray Serve and the ingress are shut down. Ray is still running.")

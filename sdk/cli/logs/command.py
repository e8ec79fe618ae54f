"""``sdk logs``: show the log lines of replicas, the ingress, Envoy and the access log, of every node, by time."""

from __future__ import annotations

import re
import time
from time import sleep
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sdk._serve.cluster_logs import Found
    from sdk._serve.node_logs import Query

# Entries without a request id and without --tail.
_TAIL = 200
# Seconds between two readings with --follow.
_REFRESH_S = 0.5
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a time such as 30s, 10m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2] or "s"]


@click.command(
    epilog="\b\nExamples:\n  sdk logs --request-id 31d58683-…\n  sdk logs --application shop --follow\n"
    "  sdk logs --since 1h --json | jq 'select(.level == \"ERROR\")'"
)
@click.option("--request-id", metavar="ID", help="Only the call with this id, on all replicas that took part.")
@click.option("--application", metavar="NAME", help="Only this application.")
@click.option("--deployment", metavar="NAME", help="Only this deployment.")
@click.option("--since", metavar="TIME", callback=_seconds, help="Only the last 30s, 10m, 2h or 1d.")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Only the last N entries; 0 for all.  [default: {_TAIL}, and all with --request-id]",
)
@click.option("-f", "--follow", is_flag=True, help="Show new entries too, those of new replicas too, until Ctrl-C.")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object for each entry, each on a line.")
@click.option(
    "--address", default=None, metavar="HOST:PORT", help="Ray cluster.  [default: RAY_ADDRESS, or a local cluster]"
)
def logs(
    request_id: str | None,
    application: str | None,
    deployment: str | None,
    since: float | None,
    tail: int | None,
    follow: bool,
    wants_json: bool,
    address: str | None,
) -> None:
    """Show log lines of replicas, the ingress, Envoy and the access log, of every node, by time.

    Exit codes: 0 lines were found on nodes that were all read; 1 no line was found, a node was not read, or no cluster
    was found.
    """
    from sdk._serve.cluster_logs import ClusterLogs
    from sdk._serve.node_logs import Query
    from sdk.cli.ray_cluster import connect
    from sdk.cli.waiting import Waiting

    query = Query(
        request_id=request_id,
        application=application,
        deployment=deployment,
        since=None if since is None else time.time() - since,
        tail=(None if request_id else _TAIL) if tail is None else tail or None,
    )
    with Waiting("Asking Ray …") as waiting:
        origin = connect(address)
        waiting.update("Reading the logs of every node …")
        cluster = ClusterLogs(query)
        found = cluster.read()
    if not origin.is_named:
        click.echo(str(origin), err=True)
    _show(found, wants_json=wants_json)
    complaints = dict(found.unreachable)
    while follow:
        sleep(_REFRESH_S)
        found = cluster.read()
        _show(found, wants_json=wants_json, known=complaints)
        complaints = dict(found.unreachable)
    if not found.entries:
        click.echo(_nothing(query, found.nodes), err=True)
    if found.unreachable or not found.entries:
        raise click.exceptions.Exit(1)


def _show(found: Found, *, wants_json: bool, known: dict[str, str] | None = None) -> None:
    """Print entries, and the nodes that could not be read unless that is known.

    Args:
        found: What was read.
        wants_json: Whether to print JSON.
        known: Address of each node that was not read the last time, with the reason.
    """
    from sdk.cli.logs.view import as_json, as_text

    for entry in found.entries:
        click.echo(as_json(entry) if wants_json else as_text(entry))
    for address, reason in sorted(found.unreachable.items()):
        if (known or {}).get(address) != reason:
            click.echo(f"no logs of node {address}: {reason}", err=True)


def _nothing(query: Query, nodes: int) -> str:
    wanted = {"request id": query.request_id, "application": query.application, "deployment": query.deployment}
    of = ", ".join(f"{name} {value!r}" for name, value in wanted.items() if value is not None)
    places = f"in the logs of {nodes} node{'' if nodes == 1 else 's'}"
    hint = "; --since may be too short" if query.since is not None else ""
    if query.request_id is not None:
        hint += (
            ". A call that no replica has answered is in the access log only: set access_log, and see "
            "`sdk run --access-log`"
            if not hint
            else ""
        )
    return f"No line{' of ' + of if of else ''} {places}{hint}."

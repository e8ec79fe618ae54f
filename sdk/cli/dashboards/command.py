"""``sdk dashboards``: write the Grafana dashboard and the alert rules into a folder."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import click

from sdk.cli.dashboards.grafana import dashboard
from sdk.errors import OptionsError

DASHBOARD, ALERTS = "grafana-ray-grpc.json", "prometheus-ray-grpc.yml"


@click.command(epilog="\b\nExample:\n  sdk dashboards --out monitoring")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder to write to; made if it does not exist.",
)
def dashboards(out: Path) -> None:
    """Write a Grafana dashboard and Prometheus alert rules for gRPC calls and their ingress.

    Import the first into Grafana, and name the second in `rule_files` of Prometheus. Ray's own dashboards have panels
    for applications, deployments and replicas; these are for methods, statuses, the ingress and Envoy.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / DASHBOARD).write_text(json.dumps(dashboard(), indent=2) + "\n", encoding="utf-8")
        (out / ALERTS).write_text(files("sdk.cli.dashboards").joinpath("alerts.yml").read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f"--out {out} can't be written: {error.strerror or error}") from None
    click.echo(f"{out / DASHBOARD}: import it into Grafana")
    click.echo(f"{out / ALERTS}: name it in rule_files of prometheus.yml")

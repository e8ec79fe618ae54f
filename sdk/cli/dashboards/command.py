"""``sdk dashboards``: write the Grafana dashboard and the alert rules into a folder, or compare it with them."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import click

from sdk._error_text import os_reason
from sdk.cli.dashboards.grafana import dashboard
from sdk.errors import OptionsError

DASHBOARD, ALERTS = "grafana-ray-grpc.json", "prometheus-ray-grpc.yml"


@click.command(epilog="\b\nExamples:\n  sdk dashboards --out monitoring\n  sdk dashboards --out monitoring --check")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder to write to; made if it does not exist.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is missing or of another version.")
@click.pass_context
def dashboards(context: click.Context, out: Path, check: bool) -> None:
    """Write a Grafana dashboard and Prometheus alert rules for gRPC calls and their ingress.

    Import the first into Grafana, and name the second in `rule_files` of Prometheus. Ray's own dashboards have panels
    for applications, deployments and replicas; these are for methods, statuses, the ingress and Envoy.

    Exit codes: 0 success; 1 with `--check`, a file is missing or differs; 2 the folder can't be used.
    """
    try:
        if check:
            stale = [name for name, content in monitoring_files().items() if _differs(out / name, content)]
            for name in stale:
                click.echo(f"{out / name} is stale or missing: run `sdk dashboards --out {out}`", err=True)
            context.exit(1 if stale else 0)
        out.mkdir(parents=True, exist_ok=True)
        for name, content in monitoring_files().items():
            (out / name).write_bytes(content)
    except OSError as error:
        action = "read" if check else "written"
        raise OptionsError(f"--out {out} can't be {action}: {os_reason(error)}") from None
    click.echo(f"{out / DASHBOARD}: import it into Grafana")
    click.echo(f"{out / ALERTS}: name it in rule_files of prometheus.yml")


def monitoring_files() -> dict[str, bytes]:
    """Return the dashboard and the alert rules by the names of their files."""
    return {
        DASHBOARD: (json.dumps(dashboard(), indent=2) + "\n").encode(),
        ALERTS: files("sdk.cli.dashboards").joinpath("alerts.yml").read_bytes(),
    }


def _differs(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() != content
    except FileNotFoundError:
        return True

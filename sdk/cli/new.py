"""``sdk new``: create a new project."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from codegen import scaffold
from sdk.cli.dashboards.command import monitoring_files


@click.command(
    epilog="\b\nExamples:\n"
    "  sdk new greeter\n"
    "  sdk new services/word-count --service Words\n"
    "  sdk new writer --template streaming\n"
    "  sdk new .      (in an empty folder, or a repository without files)"
)
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path, readable=False))
@click.option("--package", default="", metavar="NAME", help="Name of the Python package.  [default: from NAME]")
@click.option("--service", default="", metavar="NAME", help="Name of the gRPC service.  [default: from NAME]")
@click.option(
    "--template",
    type=click.Choice(list(scaffold.TEMPLATES)),
    default="service",
    show_default=True,
    help="Kind of project: " + "; ".join(f"{name}, {each.summary}" for name, each in scaffold.TEMPLATES.items()) + ".",
)
def new(folder: Path, package: str, service: str, template: str) -> None:
    """Create a folder NAME with a working project: service, client, tests, image, manifest, dashboard, tools.

    NAME may be a path; its last part names the project. The generated code is included, and the project passes
    `sdk check --strict`, its tests, mypy, pyright and ruff unchanged. All files are written, or none.

    Exit codes: 0 success; 2 the folder is not empty, or a name can't be used.
    """
    names = scaffold.choose_names(Path(os.path.abspath(folder)).name, package, service, template)
    count = scaffold.create(folder, names, {f"monitoring/{name}": each for name, each in monitoring_files().items()})
    has_proto = scaffold.TEMPLATES[template].has_proto
    generated = f", including the code generated from protos/{names.package}.proto" if has_proto else ""
    click.echo(f"{folder}: {count} files{generated}. Next:\n")
    steps = [
        "pip install -e '.[dev]'",
        f"sdk check --strict {names.package}.service",
        "pytest",
        f"sdk run {names.package}.service:app --reload",
    ]
    if folder != Path():
        steps.insert(0, f"cd {shlex.quote(str(folder))}")
    for step in steps:
        click.echo(f"  {step}")
    click.echo(f"\nThen, in another terminal:\n\n  sdk call localhost:9000 {names.method} -d '{names.data}'\n")
    click.echo("See README.md for more.")

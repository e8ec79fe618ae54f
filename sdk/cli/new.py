"""``sdk new``: a project to start from."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from codegen import scaffold
from codegen.errors import CodegenError


@click.command(
    epilog="\b\nExamples:\n"
    "  sdk new greeter\n"
    "  sdk new services/word-count --service Words\n"
    "  sdk new .      in an empty folder, or a repository without files"
)
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path, readable=False))
@click.option("--package", default="", metavar="NAME", help="Python package.  [default: from NAME]")
@click.option("--service", default="", metavar="NAME", help="gRPC service.  [default: from NAME]")
@click.pass_context
def new(context: click.Context, /, folder: Path, package: str, service: str) -> None:
    """Make a folder NAME with a project that works: proto, service, client, tests, config of every tool.

    NAME may be a path; its last part names the project. The code of the proto is generated already, and the project
    passes `sdk check --strict`, its tests, mypy, pyright and ruff as it is. All files are written, or none.

    Exits with 0 when it is made, 2 when it can't be: the folder is not empty, or a name can't be used.
    """
    try:
        names = scaffold.choose_names(Path(os.path.abspath(folder)).name, package, service)
        count = scaffold.create(folder, names)
    except CodegenError as error:
        for line in (*error.details, f"error: {error}"):
            click.echo(line, err=True)
        context.exit(error.exit_code)
    click.echo(f"{folder}: {count} files, with the code generated from protos/{names.package}.proto. Next:\n")
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
    method = f"{names.package}.{names.service}/Greet"
    click.echo(f'\nThen, in another terminal:\n\n  sdk call localhost:9000 {method} -d \'{{"name": "you"}}\'\n')
    click.echo("README.md has the rest.")

"""The command ``sdk codegen``."""

from __future__ import annotations

from pathlib import Path

import click

from codegen import compile as compiler
from codegen.errors import CodegenError


@click.command(epilog="Example:  sdk codegen protos/ --out gen")
@click.argument("protos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write to.")
@click.option(
    "-I",
    "--include",
    "includes",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to look for imported protos in. May be given several times.",
)
@click.option("--check", is_flag=True, help="Write nothing; list the files that are not up to date and exit with 1.")
def codegen(protos: tuple[Path, ...], out: Path, includes: tuple[Path, ...], check: bool) -> None:
    """Generate typed Python from PROTOS, which are .proto files or folders of them.

    For each file: *_pb2.py and *_pb2_grpc.py with their type stubs, and, when it has services, *_sdk.py with the base
    to subclass and the clients. Only files whose content changes are written, and none when a proto has an error.

    Exits with 0 when all is well, 1 when a proto has an error or --check finds stale files, 2 when used wrongly.
    """
    try:
        _run(protos, out, includes, check)
    except CodegenError as error:
        click.echo(f"Error: {error}", err=True)
        click.get_current_context().exit(error.exit_code)


def _run(protos: tuple[Path, ...], out: Path, includes: tuple[Path, ...], check: bool) -> None:
    if out.exists() and not out.is_dir():
        raise CodegenError(f"--out {out} is not a folder", exit_code=2)
    sources = compiler.find(protos, includes)
    output = compiler.run(sources, includes)
    for warning in output.warnings:
        click.echo(warning, err=True)
    difference = compiler.compare(output, out)
    made = f"{_count(len(output.files), 'file')} from {_count(len(sources), 'proto')}"
    if not check:
        compiler.write(output, difference, out)
        same = len(output.files) - len(difference.changed)
        removed = f", {len(difference.removed)} removed" if difference.removed else ""
        click.echo(f"{out}: {made}: {len(difference.changed)} written, {same} up to date{removed}")
    elif difference.stale:
        for path in difference.stale:
            click.echo(f"{out / path} is stale", err=True)
        words = " ".join(["sdk codegen", *map(str, protos), *(f"-I {path}" for path in includes), f"--out {out}"])
        raise CodegenError(f"{len(difference.stale)} of {made} not up to date; run: {words}")
    else:
        click.echo(f"{out}: {made}, all up to date")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

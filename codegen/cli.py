"""The command ``sdk codegen``."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from codegen import config, progress, watch
from codegen import sync as update
from codegen.errors import CodegenError
from codegen.sync import Options, Report

# Options that may stand in pyproject.toml, by the names that they have here.
_NAMES = ("protos", "out", "proto_path", "exclude", "package")

_PATH = click.Path(path_type=Path, readable=False)

_EXAMPLES = """\b
Examples:
  sdk codegen protos/ --out gen
  sdk codegen protos/ -I third_party/ --exclude '*_test.proto' --out gen
  sdk codegen protos/ --out src/myapp/gen --package myapp.gen
  sdk codegen --check      with [tool.sdk.codegen] in pyproject.toml
"""


@click.command(epilog=_EXAMPLES)
@click.argument("protos", nargs=-1, type=_PATH)
@click.option("--out", type=_PATH, metavar="DIR", help="Folder to write to.")
@click.option(
    "-I",
    "--proto-path",
    multiple=True,
    type=_PATH,
    metavar="DIR",
    help="Folder to look for imported protos in. May be given several times.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Leave out protos whose path below their root, or a folder of it, matches. May be given several times.",
)
@click.option(
    "--package",
    default="",
    metavar="NAME",
    help="Dotted name of the Python package that DIR is. Without it, DIR has to be on sys.path.",
)
@click.option("--check", is_flag=True, help="Write nothing; list the files that are not up to date and exit with 1.")
@click.option(
    "--watch", "is_watching", is_flag=True, help="Go on, and generate again whenever a proto changes, until Ctrl-C."
)
@click.pass_context
def codegen(
    context: click.Context,
    /,
    check: bool,
    is_watching: bool,
    **_: Any,
) -> None:
    """Generate typed Python from PROTOS, which are .proto files or folders of them.

    For each file: *_pb2.py and *_pb2_grpc.py with their type stubs, and, when it has services, *_sdk.py with the base
    to subclass and the clients. Only files whose content changes are written, and none when a proto has an error. Files
    that an earlier run made from a proto that is gone are removed; others never are.

    PROTOS and options that are not given are taken from [tool.sdk.codegen] of the nearest pyproject.toml that has it:
    protos, out, proto-path, exclude, package. Paths in it are relative to it.

    Exits with 0 when all is well, 1 when a proto has an error or --check finds something, 2 when used wrongly.
    """
    given = {name: context.params[name] for name in _NAMES if context.params[name]}
    try:
        if check and is_watching:
            raise CodegenError("--check and --watch exclude one another", exit_code=2)
        if is_watching:
            _watch(given)
        elif check:
            _check(_options(given), given)
        else:
            _update(_options(given))
    except CodegenError as error:
        _show_error(error)
        context.exit(error.exit_code)


def _options(given: Mapping[str, Any]) -> Options:
    """Return the options of this run: those given, and for the others what ``pyproject.toml`` says.

    Raises:
        CodegenError: ``pyproject.toml`` is wrong, or what has no default stands nowhere.
    """
    found = config.load(Path.cwd())
    options = {name: given.get(name) or getattr(found, name) for name in _NAMES}
    for name, what in (("protos", "PROTOS"), ("out", "--out DIR")):
        if not options[name]:
            where = f"[{config.TABLE}] of {found.file or config.FILE}"
            raise CodegenError(f"no {what} given; {where} has no {name!r} either", exit_code=2)
    return Options(**options)


def _update(options: Options) -> None:
    with progress.steps() as steps:
        report = update.update(options, steps)
    _show_notes(options, report)
    written = len(report.missing) + len(report.stale)
    removed = f", {len(report.extra)} removed" if report.extra else ""
    click.echo(f"{_made(options, report)}: {written} written, {report.files - written} up to date{removed}")


def _check(options: Options, given: Mapping[str, Any]) -> None:
    with progress.steps() as steps:
        report = update.check(options, steps)
    _show_notes(options, report)
    if report.is_up_to_date:
        click.echo(f"{_made(options, report)}, all up to date")
        return
    found = {
        **dict.fromkeys(report.missing, "is missing"),
        **dict.fromkeys(report.stale, "is stale"),
        **dict.fromkeys(report.extra, "is extra: no proto makes it"),
    }
    details = [f"{options.out / path} {state}" for path, state in sorted(found.items())]
    raise CodegenError(f"{options.out} is not up to date; run: {_command(given)}", details=details)


def _watch(given: Mapping[str, Any]) -> None:
    watched: tuple[Path, ...] = ()
    # A supervisor that stops us gets the same clean end as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        while True:
            before = watch.state(watched)
            try:
                options = _options(given)
                watched = (*options.protos, *options.proto_path)
                before = watch.state(watched)
                _update(options)
            except CodegenError as error:
                _show_error(error)
            click.echo(f"watching {', '.join(map(str, watched)) or config.FILE}; Ctrl-C ends it", err=True)
            watch.wait(watched, before)


def _made(options: Options, report: Report) -> str:
    return f"{options.out}: {_count(report.files, 'file')} from {_count(report.protos, 'proto')}"


def _show_notes(options: Options, report: Report) -> None:
    for warning in report.warnings:
        click.echo(warning, err=True)
    for path in report.edited:
        click.echo(f"{options.out / path} stays, since it was edited; no proto makes it any more", err=True)


def _show_error(error: CodegenError) -> None:
    for line in error.details:
        click.echo(line, err=True)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)


def _command(given: Mapping[str, Any]) -> str:
    """Return the command line that does what ``--check`` finds undone."""
    words = ["sdk", "codegen", *map(str, given.get("protos", ()))]
    for name in _NAMES[1:]:
        values = given.get(name, ())
        for value in values if isinstance(values, tuple) else (values,):
            words += ["-I" if name == "proto_path" else f"--{name}", str(value)]
    return shlex.join(words)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

"""The command ``sdk codegen``."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from codegen import config, progress, sync, watch
from codegen.console import count, show_error
from codegen.errors import CodegenError
from codegen.proto_path import proto_path_option
from codegen.sync import Options, SyncResult

# Options that pyproject.toml may set, by their names here.
_NAMES = ("protos", "out", "proto_path", "exclude", "package")

_PATH = click.Path(path_type=Path, readable=False)

_EXAMPLES = """\b
Examples:
  sdk codegen protos/ --out gen
  sdk codegen protos/ -I third_party/ --exclude '*_test.proto' --out gen
  sdk codegen protos/ --out src/myapp/gen --package myapp.gen
  sdk codegen --check      (with [tool.sdk.codegen] in pyproject.toml)
"""


@click.command(epilog=_EXAMPLES)
@click.argument("protos", nargs=-1, type=_PATH)
@click.option("--out", type=_PATH, metavar="DIR", help="Write to DIR.")
@proto_path_option()
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Skip protos whose path below their root, or a folder of it, matches. Repeatable.",
)
@click.option(
    "--package",
    default="",
    metavar="NAME",
    help="Dotted name of the Python package that the output folder is. Without it, the folder must be on sys.path.",
)
@click.option("--check", is_flag=True, help="Write nothing; list the files that are not up to date and exit with 1.")
@click.option(
    "--watch", "is_watching", is_flag=True, help="Keep running and generate again when a proto changes, until Ctrl-C."
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

    For each proto, generate *_pb2.py and *_pb2_grpc.py with their type stubs and, if it has services, *_sdk.py with the
    base class to subclass and the clients. Write only files whose content changes, and nothing if a proto has an error.
    Remove files that an earlier run generated from a proto that no longer exists, and no others.

    PROTOS and options default to [tool.sdk.codegen] in the nearest pyproject.toml that has this table: protos, out,
    proto-path, exclude, package. Paths in it are relative to that file.

    Exit codes: 0 success; 1 a proto has an error, or --check found something; 2 usage error.
    """
    given = {name: context.params[name] for name in _NAMES if context.params[name]}
    try:
        if check and is_watching:
            raise CodegenError("--check and --watch are mutually exclusive", exit_code=2)
        if is_watching:
            _watch(given)
        elif check:
            _check(_options(given), given)
        else:
            _update(_options(given))
    except CodegenError as error:
        show_error(str(error), error.details)
        context.exit(error.exit_code)


def _options(given: Mapping[str, Any]) -> Options:
    """Return the options of this run: those on the command line, then those of ``pyproject.toml``.

    Raises:
        CodegenError: ``pyproject.toml`` is wrong, or a required option is missing in both.
    """
    found = config.load(Path.cwd())
    options = {name: given.get(name) or getattr(found, name) for name in _NAMES}
    for name, shown in (("protos", "PROTOS"), ("out", "--out DIR")):
        if not options[name]:
            table = f"[{config.TABLE}] of {found.file or config.FILE}"
            raise CodegenError(f"no {shown} given, and {table} has no {name!r}", exit_code=2)
    return Options(**options)


def _update(options: Options) -> None:
    with progress.reporter() as reporter:
        result = sync.update(options, reporter)
    _show_notes(options, result)
    written = len(result.missing) + len(result.stale)
    removed = f", {len(result.extra)} removed" if result.extra else ""
    click.echo(f"{_summary(options, result)}: {written} written, {result.files - written} up to date{removed}")


def _check(options: Options, given: Mapping[str, Any]) -> None:
    with progress.reporter() as reporter:
        result = sync.check(options, reporter)
    _show_notes(options, result)
    if result.is_up_to_date:
        click.echo(f"{_summary(options, result)}, all up to date")
        return
    found = {
        **dict.fromkeys(result.missing, "is missing"),
        **dict.fromkeys(result.stale, "is stale"),
        **dict.fromkeys(result.extra, "is extra: no proto generates it"),
    }
    details = [f"{options.out / path} {state}" for path, state in sorted(found.items())]
    remedy = f"run: {_command(given)}"
    for name, (theirs, ours) in result.other_versions.items():
        details.append(f"{name} {theirs} wrote the stale files, and {ours} is installed")
        if name == "grpcio-tools":
            remedy = f"install {name}=={theirs}, or {remedy}"
    raise CodegenError(f"{options.out} is not up to date; {remedy}", details=details)


def _watch(given: Mapping[str, Any]) -> None:
    watched: tuple[Path, ...] = ()
    # A supervisor that stops us gets the same clean end as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        while True:
            before = watch.versions(watched)
            try:
                options = _options(given)
                watched = (*options.protos, *options.proto_path)
                before = watch.versions(watched)
                _update(options)
            except CodegenError as error:
                show_error(str(error), error.details)
            click.echo(f"watching {', '.join(map(str, watched)) or config.FILE}; press Ctrl-C to stop", err=True)
            watch.wait(watched, before)


def _summary(options: Options, result: SyncResult) -> str:
    return f"{options.out}: {count(result.files, 'file')} from {count(result.protos, 'proto')}"


def _show_notes(options: Options, result: SyncResult) -> None:
    for warning in result.warnings:
        click.echo(warning, err=True)
    for path in result.edited:
        click.echo(f"{options.out / path} is kept because it was edited; no proto generates it any more", err=True)


def _command(given: Mapping[str, Any]) -> str:
    """Return the command line that makes the changes that ``--check`` found."""
    words = ["sdk", "codegen", *map(str, given.get("protos", ()))]
    for name in _NAMES[1:]:
        values = given.get(name, ())
        for value in values if isinstance(values, tuple) else (values,):
            words += ["-I" if name == "proto_path" else f"--{name}", str(value)]
    return shlex.join(words)

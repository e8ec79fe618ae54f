"""``sdk services``: what a gRPC server, or a proto, has to offer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdk.cli.rpc.server_options import quieten_grpc, server_options
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk.cli.rpc.listing import Listed
    from sdk.cli.rpc.schemas import Schema
    from sdk.descriptors import Descriptors

_PATH = click.Path(path_type=Path)
_EXAMPLES = """\b
Examples:
  sdk services localhost:9000
  sdk services localhost:9000 greet.HelloRequest     as the text of a proto
  sdk services localhost:9000 --json | jq -r '.services[].name'
  sdk services protos/ Greeter
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target", metavar="TARGET")
@click.argument("name", required=False)
@click.option("--all", "shows_all", is_flag=True, help="List the server's own services too: health, reflection, …")
@click.option("--template", is_flag=True, help="Print JSON with every field of the message NAME, to be edited.")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object.")
@server_options
@click.option(
    "-I",
    "--proto-path",
    multiple=True,
    type=_PATH,
    metavar="DIR",
    help="Folder to look for imported protos in, when TARGET is a proto. May be given several times.",
)
def services(target: str, name: str | None, shows_all: bool, template: bool, wants_json: bool, **options: Any) -> None:
    """List the services of TARGET with their methods; or print what NAME is, as the text of a proto.

    TARGET is HOST:PORT of a server with reflection, or https://HOST:PORT for TLS; a proto file or a folder of them; or
    a file of descriptors. NAME is a service, a method, a message or an enum, or as much of the end of its name as is
    unambiguous.

    Exits with 0, or with 2 when there is no such server or name.
    """
    quieten_grpc()
    from sdk.cli.rpc.schemas import FileSchema

    if template and name is None:
        raise click.UsageError("--template needs the NAME of a message.")
    path = Path(target)
    if path.exists():
        _show(FileSchema([path], options["proto_path"], ""), None, name, template, wants_json)
        return
    if options["proto_path"]:
        raise click.UsageError("-I is for a TARGET that is a proto.")
    if not re.search(r"[:.]", target) or target.endswith(".proto"):
        raise OptionsError(f"{target}: there is no such file or folder, and it is no HOST:PORT")
    from sdk.cli.rpc.connection import connect
    from sdk.cli.rpc.schemas import ServerSchema

    connection = connect(target, options)
    with connection.client:
        schema = ServerSchema(connection, "Give its protos, or descriptors of them, as TARGET.")
        if name is not None:
            _show(schema, None, name, template, wants_json)
            return
        from sdk.cli.rpc.listing import listed

        _show(schema, listed(connection, schema, shows_all), None, template, wants_json)


def _show(
    schema: Schema, services: Mapping[str, Listed] | None, name: str | None, template: bool, wants_json: bool
) -> None:
    from sdk.cli.rpc import listing
    from sdk.cli.rpc.json_messages import dumps
    from sdk.cli.rpc.symbols import describe_all

    names = schema.services()
    descriptors, problems = describe_all(schema, names)
    if name is not None:
        click.echo(_described(schema, descriptors, names, name, template, wants_json))
        return
    if services is None:
        services = {each: listing.Listed() for each in names}
    if wants_json:
        click.echo(dumps(listing.as_json(services, descriptors, problems), indent=2))
        return
    for line in listing.as_lines(services, descriptors, problems):
        click.echo(line)
    if not services:
        click.echo(f"{schema.source} has no services", err=True)


def _described(
    schema: Schema, descriptors: Descriptors, names: list[str], name: str, template: bool, wants_json: bool
) -> str:
    from sdk.cli.rpc.describing import describe, kind_of, template_of
    from sdk.cli.rpc.json_messages import dumps
    from sdk.cli.rpc.symbols import find_symbol

    symbol = find_symbol(descriptors, names, name, schema.source)
    if template:
        if kind_of(symbol) != "message":
            raise OptionsError(f"--template: {symbol.full_name} is no message, it is a {kind_of(symbol)}")
        return dumps(template_of(symbol), indent=2)
    text = describe(symbol, descriptors)
    if wants_json:
        return dumps(
            {"name": symbol.full_name, "kind": kind_of(symbol), "file": _file(symbol), "proto": text}, indent=2
        )
    return f"// {symbol.full_name}, a {kind_of(symbol)} of {descriptors.place(symbol)}\n{text}"


def _file(symbol: Any) -> str:
    return str((getattr(symbol, "containing_service", None) or symbol).file.name)

"""``sdk services``: list or describe the services of a gRPC server or a proto."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen.proto_path import proto_path_option
from sdk._error_text import os_reason
from sdk.cli.rpc.server_options import quieten_grpc, server_options
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk._protos.descriptors import Descriptors
    from sdk.cli.rpc.connection import ServerConnection
    from sdk.cli.rpc.schemas import Schema

_EXAMPLES = """\b
Examples:
  sdk services localhost:9000
  sdk services localhost:9000 greet.HelloRequest     (as proto source)
  sdk services localhost:9000 --json | jq -r '.services[].name'
  sdk services protos/ Greeter
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target", metavar="TARGET")
@click.argument("name", required=False)
@click.option("--all", "shows_all", is_flag=True, help="Also list built-in services: health, reflection, …")
@click.option("--template", is_flag=True, help="Print JSON with every field of the message NAME, as a template.")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--descriptor-set-out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the descriptors of the services to FILE, for `sdk call --protos` or `sdk check --against`.",
)
@server_options
@proto_path_option("if TARGET is a proto")
def services(target: str, name: str | None, **options: Any) -> None:
    """List the services of TARGET with their methods, or print the definition of NAME as proto source.

    TARGET is HOST:PORT of a server with reflection, or https://HOST:PORT for TLS; a proto file or a folder of them; or
    a file of descriptors. NAME is a service, method, message or enum, or the end of its name if that is unambiguous.

    Exit codes: 0 success; 2 the server can't be reached, or the name does not exist.
    """
    quieten_grpc()
    if options["template"] and name is None:
        raise click.UsageError("--template needs the NAME of a message.")
    if options["descriptor_set_out"] is not None and name is not None:
        raise click.UsageError("--descriptor-set-out writes all services; omit NAME.")
    path = Path(target)
    if os.path.exists(path):  # not Path.exists, which raises an error for a name that is too long
        from sdk.cli.rpc.schemas import FileSchema

        _show(FileSchema([path], options["proto_path"], ""), None, name, options)
        return
    if options["proto_path"]:
        raise click.UsageError("-I needs a TARGET that is a proto.")
    if not re.search(r"[:.]", target) or target.endswith(".proto"):
        raise OptionsError(f"{target}: neither an existing file or folder, nor HOST:PORT")
    from sdk.cli.rpc.connection import connect
    from sdk.cli.rpc.schemas import ServerSchema

    connection = connect(target, options)
    with connection.client:
        schema = ServerSchema(connection, "Give its protos or descriptors as TARGET.")
        _show(schema, connection, name, options)


def _show(schema: Schema, server: ServerConnection | None, name: str | None, options: Mapping[str, Any]) -> None:
    """Print or write what the command line asks for.

    Args:
        schema: The descriptors.
        server: The server; None for files.
        name: The name to describe; None to list the services.
        options: The options of the command.
    """
    from sdk.cli.rpc.symbols import describe_all, is_built_in

    names = schema.services()
    if name is not None:
        descriptors, _ = describe_all(schema, names)
        click.echo(_described(schema, descriptors, names, name, options))
        return
    names = [each for each in names if options["shows_all"] or not is_built_in(each)]
    descriptors, problems = describe_all(schema, names)
    if options["descriptor_set_out"] is not None:
        _write(descriptors, names, schema, options["descriptor_set_out"])
        return
    from sdk.cli.rpc import listing
    from sdk.cli.rpc.json_messages import dumps

    services = (
        {each: listing.ServiceInfo() for each in names} if server is None else listing.service_infos(server, names)
    )
    if options["wants_json"]:
        click.echo(dumps(listing.as_json(services, descriptors, problems), indent=2))
        return
    for line in listing.as_lines(services, descriptors, problems):
        click.echo(line)
    if not services:
        lack = schema.describe_lack()
        click.echo(f"{schema.source} has no services" + (f": {lack}" if lack else ""), err=True)


def _write(descriptors: Descriptors, names: list[str], schema: Schema, out: Path) -> None:
    if not names:
        raise OptionsError(f"{schema.source} has no services")
    try:
        out.write_bytes(descriptors.file_descriptor_set.SerializeToString(deterministic=True))
    except OSError as error:
        raise OptionsError(f"--descriptor-set-out {out}: {os_reason(error)}") from None
    click.echo(f"{out}: {', '.join(names)}", err=True)


def _described(
    schema: Schema, descriptors: Descriptors, names: list[str], name: str, options: Mapping[str, Any]
) -> str:
    from sdk.cli.rpc.descriptions import describe, kind_of, template_of
    from sdk.cli.rpc.json_messages import dumps
    from sdk.cli.rpc.symbols import find_symbol

    symbol = find_symbol(descriptors, names, name, schema.source)
    if options["template"]:
        if kind_of(symbol) != "message":
            raise OptionsError(f"--template: {symbol.full_name} is a {kind_of(symbol)}, not a message")
        return dumps(template_of(symbol), indent=2)
    text = describe(symbol, descriptors)
    if options["wants_json"]:
        return dumps(
            {"name": symbol.full_name, "kind": kind_of(symbol), "file": _file(symbol), "proto": text}, indent=2
        )
    return f"// {symbol.full_name}, a {kind_of(symbol)} of {descriptors.location(symbol)}\n{text}"


def _file(symbol: Any) -> str:
    return str((getattr(symbol, "containing_service", None) or symbol).file.name)

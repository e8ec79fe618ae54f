"""``sdk openapi``: the OpenAPI document of services, for their calls as JSON over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen.proto_path import proto_path_option
from sdk.cli.rpc.server_options import quieten_grpc, server_options
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdk.cli.rpc.schemas import Schema

_EXAMPLES = """\b
Examples:
  sdk openapi protos/ > openapi.json
  sdk openapi localhost:9000 greet.Greeter
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target", metavar="TARGET")
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--title", metavar="TEXT", help="Title of the document.  [default: the services]")
@click.option("--api-version", metavar="TEXT", default="1", show_default=True, help="Version of the document.")
@server_options
@proto_path_option("if TARGET is a proto")
def openapi(target: str, services: tuple[str, ...], **options: Any) -> None:
    """Print the OpenAPI 3.1 document of the services of TARGET.

    TARGET is HOST:PORT of a server with reflection, a proto file or a folder of them, or a file of descriptors.

    Exit codes: 0 success; 2 the server can't be reached, or a service does not exist.
    """
    quieten_grpc()
    path = Path(target)
    if os.path.exists(path):  # not Path.exists, which raises an error for a name that is too long
        from sdk.cli.rpc.schemas import FileSchema

        _print(FileSchema([path], options["proto_path"], ""), services, options)
        return
    if options["proto_path"]:
        raise click.UsageError("-I needs a TARGET that is a proto.")
    from sdk.cli.rpc.connection import connect
    from sdk.cli.rpc.schemas import ServerSchema

    connection = connect(target, options)
    with connection.client:
        _print(ServerSchema(connection, "Give its protos or descriptors as TARGET."), services, options)


def _print(schema: Schema, wanted: Sequence[str], options: dict[str, Any]) -> None:
    from sdk._protos.openapi import build_openapi
    from sdk.cli.rpc.json_messages import dumps
    from sdk.cli.rpc.symbols import is_built_in

    known = schema.services()
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise OptionsError(f"{schema.source} has no service {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    names = list(wanted) or [name for name in known if not is_built_in(name)]
    title = options["title"] or ", ".join(names) or "no services"
    document = build_openapi(schema.describe(names), names, title=title, version=options["api_version"])
    click.echo(dumps(document, indent=2))

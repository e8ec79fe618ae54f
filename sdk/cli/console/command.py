"""``sdk console``: serve a page with the services of a server, a form for each method, and the state of the cluster."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen.proto_path import proto_path_option
from sdk.cli.rpc.server_options import quieten_grpc, server_options

if TYPE_CHECKING:
    from sdk.cli.rpc.connection import ServerConnection
    from sdk.cli.rpc.schemas import Schema

_PATH = click.Path(path_type=Path)
_LOCAL = re.compile(r"((http|grpc)s?://)?(localhost|127\.\d+\.\d+\.\d+|\[::1\]):\d+/?$|unix:")
_EXAMPLES = """\b
Examples:
  sdk console
  sdk console localhost:50051 --protos protos/       (a server without reflection, or without comments in it)
  sdk console https://grpc.example.com --token-file token
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target", default="localhost:9000")
@click.option(
    "--port",
    default=8270,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Port of the page on 127.0.0.1; 0 for a free one.",
)
@click.option(
    "--address",
    default=None,
    metavar="HOST:PORT",
    help="Ray cluster whose state and calls the page shows.  [default: as `sdk status`, if TARGET is on this machine]",
)
@server_options
@click.option(
    "--protos",
    multiple=True,
    type=_PATH,
    metavar="PATH",
    help="Read the types, with their comments, from proto files, folders of them, or a file of descriptors instead of "
    "the server. Repeatable.",
)
@proto_path_option()
def console(target: str, port: int, address: str | None, **options: Any) -> None:
    """Serve a page with the services of TARGET and a form to call each method, until Ctrl-C.

    TARGET is HOST:PORT, or https://HOST:PORT for TLS, of any gRPC server with reflection. The page listens on 127.0.0.1
    only, loads nothing from elsewhere, and needs the link that this prints, which has a token.

    Exit codes: 2 the server can't be reached, or the port is not free; 130 Ctrl-C.
    """
    quieten_grpc()
    if options["proto_path"] and not options["protos"]:
        raise click.UsageError("-I needs --protos.")
    import aiohttp  # noqa: F401  # its absence is reported before anything else happens

    from sdk.cli.rpc.connection import connect

    files: Schema | None = None
    if options["protos"]:
        from sdk.cli.rpc.schemas import FileSchema

        files = FileSchema(options["protos"], options["proto_path"], "--protos")
    connection = connect(target, options)
    with connection.client:
        asyncio.run(_serve(connection, files, port, address))


async def _serve(connection: ServerConnection, files: Schema | None, port: int, address: str | None) -> None:
    from sdk.cli.console.cluster import Cluster, NoCluster
    from sdk.cli.console.server import ConsoleServer, listen
    from sdk.cli.console.services import Services

    services = Services(connection, files)
    services.catalog()  # a server without reflection is reported here, not in the page
    cluster = Cluster(address) if address is not None or _LOCAL.match(connection.target) else NoCluster()
    async with listen(port, lambda guard: ConsoleServer(connection, services, cluster, guard)) as (link, _):
        click.echo(f"The console of {connection.target}: {link}")
        click.echo("Ctrl-C stops it.", err=True)
        await asyncio.Event().wait()

"""Shell completion of METHOD: the methods of the server at TARGET."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk.errors import SdkError

if TYPE_CHECKING:
    import click

# Users do not wait longer for a completion.
_TIMEOUT_S = 1.0


def complete_method(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the methods that begin with a prefix, as ``pkg.Service/Method``; none if the server does not answer.

    Args:
        ctx: The parsed part of the command line.
        _: The argument.
        incomplete: The prefix.
    """
    target = ctx.params.get("target")
    if not target:
        return []
    from sdk.cli.rpc.connection import connect
    from sdk.cli.rpc.schemas import ServerSchema
    from sdk.cli.rpc.symbols import is_built_in, path_of

    options = {name: ctx.params.get(name) for name in ("application", "tls_ca", "tls_certificate", "tls_private_key")}
    options |= {"tls_server_name": ctx.params.get("tls_server_name"), "metadata": ctx.params.get("metadata") or ()}
    try:
        connection = connect(target, {**options, "connect_timeout": _TIMEOUT_S, "max_message_length": -1})
        with connection.client:
            schema = ServerSchema(connection, timeout=_TIMEOUT_S)
            names = [name for name in schema.services() if not is_built_in(name) or incomplete.startswith(name[:4])]
            methods = [
                path_of(method.full_name)
                for service in schema.describe(names).services.values()
                if service.full_name in names
                for method in service.methods
            ]
    except SdkError:  # a message would disturb the line that is being typed; the command itself will report it
        return []
    return [path for path in methods if path.startswith(incomplete.lstrip("/"))]

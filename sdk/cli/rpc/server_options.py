"""Options of the connection to a server, shared by the commands that connect to one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

# gRPC takes no larger ones.
_DAY_S, _INT32 = 86_400, 2**31 - 1
_FILE = click.Path(dir_okay=False, path_type=Path)


def quieten_grpc() -> None:
    """Hide the logs of gRPC's core, such as failed handshakes. Call it before grpc is imported.

    See https://github.com/grpc/grpc/blob/master/doc/environment_variables.md.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def server_options(command: F) -> F:
    """Add the options of the connection to a server to a command; ``connect`` takes their values."""
    for option in reversed(
        (
            click.option("--application", metavar="NAME", default=None, help="Route to this application."),
            click.option(
                "-H",
                "--metadata",
                multiple=True,
                metavar="'KEY: VALUE'",
                help="Send metadata; the value of a key that ends with -bin is base64. Repeatable.",
            ),
            click.option(
                "--token",
                metavar="TOKEN",
                envvar="SDK_TOKEN",
                help="Send this token as `authorization: Bearer`. Other users can read the command line: better by "
                "--token-file or the variable SDK_TOKEN.",
            ),
            click.option("--token-file", type=_FILE, metavar="FILE", help="Send the token that FILE holds."),
            click.option(
                "--tls-ca", type=_FILE, metavar="FILE", help="CA certificates in PEM, instead of the machine's."
            ),
            click.option("--tls-certificate", type=_FILE, metavar="FILE", help="Client certificate in PEM."),
            click.option(
                "--tls-private-key", type=_FILE, metavar="FILE", help="Private key of the client certificate, in PEM."
            ),
            click.option(
                "--tls-server-name", metavar="NAME", help="Name in the server's certificate, if it differs from TARGET."
            ),
            click.option(
                "--connect-timeout",
                type=click.FloatRange(min=0, min_open=True, max=_DAY_S),
                default=10.0,
                show_default=True,
                metavar="SECONDS",
                help="Timeout of the connection.",
            ),
            click.option(
                "--max-message-length",
                type=click.IntRange(min=-1, max=_INT32),
                metavar="BYTES",
                help="Maximum length of a message; -1 for no limit.  [default: 64 MiB]",
            ),
        )
    ):
        command = option(command)
    return command

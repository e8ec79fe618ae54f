"""The options that say how a server is reached, the same for every command that reaches one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(dir_okay=False, path_type=Path)


def quieten_grpc() -> None:
    """Keep what gRPC's core logs, such as failed handshakes, off the terminal. To be called before grpc is imported."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def server_options(command: F) -> F:
    """Add the options that say how a server is reached; ``connect`` takes them."""
    for option in reversed(
        (
            click.option("--application", metavar="NAME", default=None, help="Application to route to."),
            click.option(
                "-H",
                "--metadata",
                multiple=True,
                metavar="'KEY: VALUE'",
                help="Metadata to send; the value of a key that ends with -bin is base64. May be given several times.",
            ),
            click.option(
                "--tls-ca", type=_FILE, metavar="FILE", help="Certificates in PEM to trust instead of the machine's."
            ),
            click.option("--tls-certificate", type=_FILE, metavar="FILE", help="The client's certificate, in PEM."),
            click.option("--tls-private-key", type=_FILE, metavar="FILE", help="Its private key, in PEM."),
            click.option(
                "--tls-server-name", metavar="NAME", help="Name that the server's certificate has, if not TARGET's."
            ),
            click.option(
                "--connect-timeout",
                type=click.FloatRange(min=0, min_open=True),
                default=10.0,
                show_default=True,
                metavar="SECONDS",
                help="How long to try to reach the server.",
            ),
            click.option(
                "--max-message-length",
                type=click.IntRange(min=-1),
                metavar="BYTES",
                help="Longest message to take; -1 for any.  [default: 64 MiB]",
            ),
        )
    ):
        command = option(command)
    return command

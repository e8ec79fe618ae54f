"""End of a command that fails: the message on stderr, and the exit code."""

from __future__ import annotations

import io
import re

import click

from codegen.console import show_error
from codegen.errors import CodegenError
from sdk.errors import ApplicationError, OptionsError, SdkError, ServerError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as in shells."""


class ModuleFailedError(ApplicationError):
    """A module was found, and an error ended its import. The author of the module must act."""


def show(error: SdkError | CodegenError | click.ClickException) -> int:
    """Print an error that is meant for users, without a traceback.

    Returns:
        The exit code of the command.
    """
    if isinstance(error, click.ClickException):
        return _show_click_error(error)
    show_error(str(error), error.details if isinstance(error, CodegenError) else ())
    return exit_code(error)


def exit_code(error: SdkError | CodegenError) -> int:
    """Return the exit code of a command that ends with an error: 2 if it was used wrongly, else 1."""
    if isinstance(error, CodegenError):
        return error.exit_code
    if isinstance(error, ModuleFailedError):
        return 1
    return 2 if isinstance(error, (ApplicationError, OptionsError, ServerError)) else 1


def _show_click_error(error: click.ClickException) -> int:
    """Print an error of click with our prefix, after the usage that click shows before some errors."""
    text = io.StringIO()
    error.show(text)
    usage, *messages = re.split("^Error: ", text.getvalue(), maxsplit=1, flags=re.MULTILINE)
    click.echo(usage, nl=False, err=True)  # the help, for `sdk` alone
    for message in messages:
        show_error(message.rstrip("\n"))
    return error.exit_code

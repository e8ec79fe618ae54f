"""The ``sdk`` command itself: which commands there are, and how every error of theirs ends."""

from __future__ import annotations

import importlib
import io
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

import sdk
from sdk.errors import ApplicationError, OptionsError, SdkError, ServerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Where each command is and what its line in `sdk --help` says. Commands import Ray or grpcio-tools, which take
# seconds: only the one that is called is loaded.
_COMMANDS: dict[str, tuple[str, str]] = {
    "call": ("sdk.cli.call:call", "Call a method of a gRPC server, with messages as JSON."),
    "check": ("sdk.cli.check.command:check", "Check that classes fit their proto services; needs no cluster."),
    "codegen": ("codegen.cli:codegen", "Generate typed Python from .proto files."),
    "completion": ("sdk.cli.completion:completion", "Print the script that completes commands in a shell."),
    "new": ("sdk.cli.new:new", "Make a project to start from."),
    "run": ("sdk.cli.run.command:run", "Serve an application behind Envoy until Ctrl-C."),
    "services": ("sdk.cli.services:services", "List what a gRPC server serves, or describe a part of it."),
    "shutdown": ("sdk.cli.shutdown:shutdown", "End every application and the ingress."),
    "status": ("sdk.cli.status:status", "Show how applications and proxies are."),
}
# Those that need the extra of this name.
_CODEGEN = ("codegen.cli", "sdk.cli.new")
_COMPLETE = "_SDK_COMPLETE"  # click's name for the variable by which a shell asks for completions
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


class LazyGroup(click.Group):
    """A group that loads a command when it is called, and ends every SDK error as one message.

    Args:
        lazy: For each command ``"module:attribute"`` and its line in the help.
        **options: What ``click.Group`` takes.
    """

    def __init__(self, *, lazy: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self._lazy = lazy

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; a shell that asks for completions is answered instead."""
        if _COMPLETE in os.environ:
            importlib.import_module("sdk.cli.completion")  # it registers what bash needs
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Return the context of a run; without colours where the user wants none (no-color.org)."""
        if os.environ.get("NO_COLOR"):
            extra.setdefault("color", False)
        try:
            return super().make_context(*args, **extra)
        except click.ClickException as error:
            raise click.exceptions.Exit(_show(error)) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin so, without loading the commands."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in sorted(self._lazy.items())]
        found = [item for item in found if item.value.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None when there is none of that name.

        Raises:
            ClickException: A package that the command needs is not installed.
        """
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in ("sdk", "codegen"):
                raise
            extra = "[codegen]" if module in _CODEGEN else ""
            raise click.ClickException(
                f"`sdk {cmd_name}` needs {error.name}, which is not installed: pip install 'ray-grpc-sdk{extra}'"
            ) from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was called, and end every error that is meant for people without a traceback."""
        try:
            return super().invoke(ctx)
        except SdkError as error:
            show_error(str(error))
            ctx.exit(exit_code(error))
        except click.ClickException as error:
            ctx.exit(_show(error))
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


def show_error(text: str) -> None:
    """Print an error on stderr, as all commands do."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True)


def _show(error: click.ClickException) -> int:
    """Print an error of click's in our way, after the usage that it shows before some; return its exit code."""
    text = io.StringIO()
    error.show(text)
    usage, *message = re.split("^Error: ", text.getvalue(), maxsplit=1, flags=re.MULTILINE)
    click.echo(usage, nl=False, err=True)  # the help, for `sdk` alone
    for each in message:
        show_error(each.rstrip("\n"))
    return error.exit_code


def exit_code(error: SdkError) -> int:
    """Return 2 when the command was called with something wrong, 1 when something else is."""
    from sdk.cli.target import ModuleFailedError

    if isinstance(error, ModuleFailedError):
        return 1
    return 2 if isinstance(error, (ApplicationError, OptionsError, ServerError)) else 1


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sdk.__version__, prog_name="sdk")
def main() -> None:
    """Typed gRPC services on Ray Serve, behind Envoy."""

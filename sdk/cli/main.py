"""The ``sdk`` command: the group of all commands, each loaded when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

import sdk
from codegen.errors import CodegenError
from sdk._error_text import one_line
from sdk._extras import Extra, import_with_extra, missing_package
from sdk.cli.errors import INTERRUPTED, show
from sdk.errors import ClusterError, MissingExtraError, SdkError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The module of each command and its line in `sdk --help`. Commands import Ray or grpcio-tools, which takes seconds, so
# only the command that is called is loaded.
_COMMANDS: dict[str, tuple[str, str]] = {
    "apikey": ("sdk.cli.apikey:apikey", "Make an API key for clients of the ingress."),
    "call": ("sdk.cli.call:call", "Call a method of a gRPC server, with messages as JSON."),
    "check": ("sdk.cli.check.command:check", "Check classes against their protos, without a cluster."),
    "codegen": ("codegen.cli:codegen", "Generate typed Python from .proto files."),
    "completion": ("sdk.cli.completion:completion", "Print the completion script for a shell."),
    "console": ("sdk.cli.console.command:console", "Serve a page to browse and call the services of a server."),
    "dashboards": ("sdk.cli.dashboards.command:dashboards", "Write a Grafana dashboard and alert rules."),
    "doctor": ("sdk.cli.doctor:doctor", "Show versions, and check what serving needs."),
    "logs": ("sdk.cli.logs.command:logs", "Show the log lines of every node, by request id or application."),
    "new": ("sdk.cli.new:new", "Create a new project."),
    "openapi": ("sdk.cli.openapi:openapi", "Print the OpenAPI document of services."),
    "run": ("sdk.cli.run.command:run", "Serve an application behind Envoy, until Ctrl-C."),
    "services": ("sdk.cli.services:services", "List or describe the services of a gRPC server."),
    "shutdown": ("sdk.cli.shutdown:shutdown", "Shut down every application and the ingress."),
    "status": ("sdk.cli.status:status", "Show applications, deployments and proxies."),
    "top": ("sdk.cli.top.command:top", "Show calls, latencies, errors and queues, live."),
}
# The extra that a command needs, for the message where it is not installed.
_EXTRAS: dict[str, Extra] = {
    "codegen": "codegen",
    "console": "console",
    "logs": "serve",
    "new": "codegen",
    "run": "serve",
    "shutdown": "serve",
    "status": "serve",
    "top": "serve",
}
# Words for commands in other tools: Ray Serve's and buf's command lines, uvicorn's and grpcurl's ways.
_OTHER_WORDS = {
    "build": "codegen",
    "deploy": "run",
    "describe": "services",
    "generate": "codegen",
    "init": "new",
    "invoke": "call",
    "lint": "check",
    "list": "services",
    "serve": "run",
    "start": "run",
    "stop": "shutdown",
}
# The environment variable by which a shell requests completions:
# https://click.palletsprojects.com/en/stable/shell-completion/
_COMPLETE = "_SDK_COMPLETE"


class LazyGroup(click.Group):
    """A group that loads a command when it is called, and shows an error for users without a traceback.

    Args:
        lazy: ``"module:attribute"`` of each command, and its line in the help.
        **options: The options of ``click.Group``.
    """

    def __init__(self, *, lazy: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self._lazy = lazy

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line, or print completions if a shell requests them."""
        if _COMPLETE in os.environ:
            importlib.import_module("sdk.cli.completion")  # registers our completion for bash
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Return the context of a run, without colours if ``NO_COLOR`` is set: https://no-color.org."""
        if os.environ.get("NO_COLOR"):
            extra.setdefault("color", False)
        try:
            return super().make_context(*args, **extra)
        except click.ClickException as error:
            raise click.exceptions.Exit(show(error)) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with a prefix, without loading the commands."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in sorted(self._lazy.items())]
        found = [item for item in found if item.value.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None if no command has this name.

        Raises:
            MissingExtraError: A package that the command needs is not installed.
        """
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        loaded = import_with_extra(module, f"`sdk {cmd_name}`", _EXTRAS.get(cmd_name, ""))
        command: click.Command = getattr(loaded, attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name.

        Raises:
            UsageError: There is no such command; the message suggests one.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], [*self._lazy, *_OTHER_WORDS], n=1)
            if not near:
                raise
            meant = f"{ctx.command_path} {_OTHER_WORDS.get(near[0], near[0])}"
            raise click.UsageError(f"{error.format_message()} Did you mean `{meant}`?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was called, and show an error for users without a traceback."""
        try:
            return super().invoke(ctx)
        except (SdkError, CodegenError, click.ClickException) as error:
            ctx.exit(show(error))
        except ModuleNotFoundError as error:  # of a command, or a library: modules of users are loaded in target.py
            name, package = str(ctx.invoked_subcommand), missing_package(error)
            if package is None:
                raise
            ctx.exit(show(MissingExtraError(f"`sdk {name}`", package, _EXTRAS.get(name, ""))))
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if not _is_raised_by_ray(error):
                raise  # our bug
            ctx.exit(show(ClusterError(f"Ray failed: {type(error).__name__}: {one_line(error)}")))


def _is_raised_by_ray(error: BaseException) -> bool:
    """Return whether the code that raised an error is Ray's: it raises any class, a bare ``Exception`` too."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "ray"


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sdk.__version__, prog_name="sdk")
def main() -> None:
    """Typed gRPC services on Ray Serve, behind Envoy."""

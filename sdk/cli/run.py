"""``sdk run``: serve an application, or those of a config file, until Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sdk.cli.interrupts import Interrupts
from sdk.errors import ClusterError
from sdk.ingress.environment import from_environment
from sdk.ingress.options import GrpcOptions

if TYPE_CHECKING:
    from rich.console import Console

    from sdk.cli.served import Served

_REFRESH_S = 1.0
_DEFAULTS = GrpcOptions()


def _absolute(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)  # symbolic links stay: renewal may go by them


@click.command(
    epilog="Example:  sdk run app:app --name greeter --port 9000\n\nExample:  sdk run serve.yaml --address local"
)
@click.argument("target", metavar="MODULE[:NAME]|CONFIG.yaml")
@click.option("--name", default=None, help="Name of the application of a module.  [default: default]")
@click.option("--host", default=_DEFAULTS.host, show_default=True, help="IP address that Envoy listens on.")
@click.option("--port", type=int, default=_DEFAULTS.port, show_default=True, help="Port that Envoy listens on.")
@click.option(
    "--address",
    default=None,
    help="Ray cluster: HOST:PORT, or `local` for a new one.  [default: RAY_ADDRESS, one that runs here, or a new one]",
)
@click.option(
    "--request-timeout-s", type=float, default=None, help="Seconds after which a call ends DEADLINE_EXCEEDED."
)
@click.option("--route-by-service", is_flag=True, help="Route calls without `application` metadata by their service.")
@click.option(
    "--error-details",
    type=click.Choice(["traceback", "message", "none"]),
    default=_DEFAULTS.error_details,
    show_default=True,
    help="What clients read of an exception in a handler.",
)
@click.option(
    "--tls-certificate",
    callback=_absolute,
    default=None,
    metavar="FILE",
    help="Certificate chain in PEM: speak TLS.",
)
@click.option(
    "--tls-private-key",
    callback=_absolute,
    default=None,
    metavar="FILE",
    help="Private key of the certificate, in PEM.",
)
@click.option(
    "--tls-client-ca",
    callback=_absolute,
    default=None,
    metavar="FILE",
    help="Certificates in PEM, one of which must have signed the client's.",
)
@click.option(
    "--access-log",
    callback=_absolute,
    default=None,
    metavar="FILE",
    help="Append a line of JSON for each call to this file.",
)
@click.pass_context
def run(context: click.Context, /, target: str, name: str | None, address: str | None, **options: Any) -> None:
    """Serve the application that MODULE:NAME holds, or those of a config file, behind Envoy, until Ctrl-C.

    NAME is what `.bind()` returned; without it, the module's only application. A config file is one of Ray Serve's own
    (`serve deploy` takes it too). A local Ray is started when there is none, and ended again with everything else.

    Each option of the ingress may also stand in an environment variable, such as SDK_GRPC_PORT, or in the `sdk:`
    section of a config file.
    """
    given = {
        option: value
        for option, value in options.items()
        if context.get_parameter_source(option) is not ParameterSource.DEFAULT
    }
    wanted = {**from_environment(os.environ), **given}
    GrpcOptions(**wanted)  # what is wrong with the command line is said before anything is imported
    with Interrupts() as interrupts:
        from sdk.cli.served import find_served

        served = find_served(target, name)
        with _quiet_logs():  # after Ray Serve was imported, which sets the levels of its logs
            failed = _serve(served, address, wanted, interrupts)
    if failed:
        context.exit(1)


def _serve(served: Served, address: str | None, wanted: Mapping[str, Any], interrupts: Interrupts) -> tuple[str, ...]:
    """Serve until a signal comes, and return the names of the applications that failed to start."""
    # Imported here: what is wrong with the command line or the module is said before Ray takes its seconds.
    from rich.console import Console

    from sdk.cli.cluster import connect_or_start
    from sdk.ingress.certificates import check_certificates
    from sdk.ingress.envoy import check_port, find_envoy
    from sdk.serve.run import start, stop_ingress
    from sdk.serve.tie import Tie

    wanted = {**served.options, **wanted}
    options = GrpcOptions(**wanted)
    find_envoy()
    console = Console(stderr=True)

    def check_node() -> None:
        check_certificates(options)
        check_port(options.host, options.port)

    with contextlib.ExitStack() as cleanup, console.status("Starting …") as progress:
        # Stops the spinner before the last lines are printed.
        cleanup.callback(progress.stop)
        is_local = connect_or_start(address, cleanup, progress.update, check_node)
        interrupts.install()
        progress.update("Starting the ingress …")
        if is_local:
            # Ray itself ends next, so Ray Serve need not be shut down apart from it.
            cleanup.callback(stop_ingress)
        cleanup.callback(interrupts.shield)
        deployed: list[str] = []
        end = _what_ends(deployed, is_local)
        tie = Tie(end)

        def end_and_untie() -> None:
            end()
            tie.release()  # not when a second Ctrl-C ended the waiting: then the ingress does the rest

        cleanup.callback(end_and_untie)
        cleanup.callback(console.print, "Shutting down …", style="dim")
        served.start_serve()
        start(_options_beside(options, wanted))
        progress.update(f"Starting {_listed(served.names)} …")
        deployed += served.names
        if not is_local:
            tie.start()
        with _tell_what_it_waits_for(served.names, console):
            failed = served.deploy(functools.partial(_tell_failure, console))
        progress.stop()
        running = [name for name in served.names if name not in failed]
        if running:
            where = "a local Ray" if is_local else "the running Ray cluster"
            _show_until_interrupted(f"on {where}. Ctrl-C ends it.", running)
    return failed


def _options_beside(options: GrpcOptions, wanted: Mapping[str, Any]) -> GrpcOptions | None:
    """Return the options to start with: beside an ingress that runs, its own with what is wanted in their place."""
    import ray

    from sdk.ingress.actors import find_controller

    controller = find_controller()
    if controller is None:
        return options
    if not wanted:
        return None
    try:
        running: GrpcOptions = ray.get(controller.status.remote(), timeout=15).options
    except ray.exceptions.RayError as error:
        raise ClusterError(f"The ingress controller failed: {' '.join(str(error).split())}") from error
    return replace(running, **wanted)


def _what_ends(deployed: list[str], is_local: bool) -> functools.partial[None]:
    """Return what ends the applications; on a cluster of others also what is not there before this command."""
    from sdk.ingress.actors import find_controller
    from sdk.serve.joining import has_serve
    from sdk.serve.run import end

    return functools.partial(
        end,
        deployed,
        ends_serve=not is_local and not has_serve(),
        ends_ingress=not is_local and find_controller() is None,
    )


def _tell_failure(console: Console, name: str, reason: str) -> None:
    console.print(
        f"error: Application {name!r} failed to start: {reason}", markup=False, highlight=False, soft_wrap=True
    )


@contextlib.contextmanager
def _tell_what_it_waits_for(names: Iterable[str], console: Console) -> Iterator[None]:
    """Pass on what Ray Serve says of applications that take long to start, such as that no node has room for them."""
    from sdk.serve.failures import messages_of

    over = threading.Event()

    def watch() -> None:
        told: set[str] = set()
        while not over.wait(_REFRESH_S):
            with contextlib.suppress(ClusterError):
                for message in {message for name in names for message in messages_of(name)} - told:
                    told.add(message)
                    console.print(message, style="yellow", highlight=False)

    watcher = threading.Thread(target=watch, name="tell-what-it-waits-for", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _show_until_interrupted(ending: str, names: Iterable[str]) -> None:
    from rich.console import Console
    from rich.live import Live

    from sdk.cli.view import as_tables, as_text
    from sdk.serve.run import status

    console = Console()
    forever = threading.Event()
    try:
        addresses = sorted({proxy.address for proxy in status().proxies})
        headline = f"Serving {_listed(names)} at {', '.join(addresses)} {ending}"
        if not console.is_terminal:
            click.echo(as_text(status()))
            click.echo(headline)
            forever.wait()
        with Live(as_tables(status(), headline), console=console, auto_refresh=False) as live:
            while not forever.wait(_REFRESH_S):
                live.update(as_tables(status(), headline), refresh=True)
    except KeyboardInterrupt:
        return


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Ray's and Ray Serve's progress reports out of the view; warnings and the application's output stay."""
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    yield

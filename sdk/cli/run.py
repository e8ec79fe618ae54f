"""``sdk run``: serve an application until Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sdk.cli.target import load_target
from sdk.errors import ClusterError
from sdk.ingress.options import GrpcOptions

if TYPE_CHECKING:
    from types import ModuleType

_REFRESH_S = 1.0
_DEFAULTS = GrpcOptions()


def _absolute(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)  # symbolic links stay: renewal may go by them


@click.command(epilog="Example:  sdk run app:app --name greeter --port 9000")
@click.argument("target", metavar="MODULE[:NAME]")
@click.option("--name", default="default", show_default=True, help="Name of the application.")
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
def run(context: click.Context, /, target: str, name: str, address: str | None, **options: Any) -> None:
    """Serve the application that MODULE:NAME holds, behind Envoy, until Ctrl-C.

    NAME is what `.bind()` returned; without it, the module's only application. A local Ray is started when there is
    none, and ended again with everything else.
    """
    grpc_options = GrpcOptions(**options)
    module, found = load_target(target)
    # Without options of ours we take those of an ingress that runs already.
    are_given = any(context.get_parameter_source(option) is not ParameterSource.DEFAULT for option in options)
    with _interrupt_on_sigterm(), _quiet_logs():
        _serve(module, found, target, name, address, grpc_options, are_given)


def _serve(
    module: ModuleType,
    found: object | None,
    target: str,
    name: str,
    address: str | None,
    options: GrpcOptions,
    are_options_given: bool,
) -> None:
    # Imported here: what is wrong with the command line or the module is said before Ray takes its seconds.
    from rich.console import Console

    from sdk.cli.cluster import connect_or_start
    from sdk.ingress.actors import find_controller
    from sdk.ingress.certificates import check_certificates
    from sdk.ingress.envoy import check_port, find_envoy
    from sdk.serve.application import only_application, require_application
    from sdk.serve.run import delete, shutdown, start, stop_ingress
    from sdk.serve.run import run as run_application

    application = only_application(module) if found is None else require_application(found, target)
    find_envoy()
    console = Console(stderr=True)

    def check_node() -> None:
        check_certificates(options)
        check_port(options.host, options.port)

    with contextlib.ExitStack() as cleanup, console.status("Starting …") as progress:
        # Stops the spinner before the last lines are printed.
        cleanup.callback(progress.stop)
        is_local = connect_or_start(address, cleanup, progress.update, check_node)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has put its own handler in the place of ours
        progress.update("Starting the ingress …")
        has_started = find_controller() is None
        start(options if has_started or are_options_given else None)
        if is_local:
            # Ray itself ends next, so Ray Serve need not be shut down apart from it.
            cleanup.callback(stop_ingress)
            cleanup.callback(delete, name)
        elif has_started:
            cleanup.callback(shutdown)
        else:
            cleanup.callback(delete, name)
        cleanup.callback(console.print, "Shutting down …", style="dim")
        progress.update(f"Starting application {name!r} …")
        with _tell_what_it_waits_for(name, lambda message: console.print(message, style="yellow", highlight=False)):
            run_application(application, name=name)
        progress.stop()
        where = "a local Ray" if is_local else "the running Ray cluster"
        _show_until_interrupted(f"on {where}. Ctrl-C ends it.", name)


@contextlib.contextmanager
def _tell_what_it_waits_for(name: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Pass on what Ray Serve says of an application that takes long to start, such as that no node has room for it."""
    from sdk.serve.failures import messages_of

    over = threading.Event()

    def watch() -> None:
        told: set[str] = set()
        while not over.wait(_REFRESH_S):
            with contextlib.suppress(ClusterError):
                for message in set(messages_of(name)) - told:
                    told.add(message)
                    tell(message)

    watcher = threading.Thread(target=watch, name="tell-what-it-waits-for", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _show_until_interrupted(ending: str, name: str) -> None:
    from rich.console import Console
    from rich.live import Live

    from sdk.cli.view import as_tables, as_text
    from sdk.serve.run import status

    console = Console()
    forever = threading.Event()
    try:
        addresses = sorted({proxy.address for proxy in status().proxies})
        headline = f"Serving {name!r} at {', '.join(addresses)} {ending}"
        if not console.is_terminal:
            click.echo(as_text(status()))
            click.echo(headline)
            forever.wait()
        with Live(as_tables(status(), headline), console=console, auto_refresh=False) as live:
            while not forever.wait(_REFRESH_S):
                live.update(as_tables(status(), headline), refresh=True)
    except KeyboardInterrupt:
        return


@contextlib.contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: a supervisor that stops us gets the same clean end."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Ray's and Ray Serve's progress reports out of the view; warnings and the application's output stay."""
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    yield

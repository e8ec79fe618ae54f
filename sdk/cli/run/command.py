"""``sdk run``: serve an application, or those of a config file, until Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sdk._ingress.env_options import from_environment
from sdk.cli.signals import Interrupts
from sdk.errors import BreakingChangeError, ClusterError, SdkError
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from sdk._serve.owner_lease import OwnerLease
    from sdk.cli.run.reload import Reloader
    from sdk.cli.run.targets import Served

_REFRESH_S = 1.0
_DEFAULTS = GrpcOptions()


def _absolute(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)  # symbolic links stay: renewal may go by them


@click.command(
    epilog="\b\nExamples:\n"
    "  sdk run app:app --name greeter --port 9000\n"
    "  sdk run app:app --reload\n"
    "  sdk run serve.yaml --address local"
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
@click.option("--allow-breaking", is_flag=True, help="Update an application although that breaks its clients.")
@click.option("--reload", is_flag=True, help="Serve the new code when Python, proto or config files change.")
@click.pass_context
def run(
    context: click.Context,
    /,
    target: str,
    name: str | None,
    address: str | None,
    allow_breaking: bool,
    reload: bool,
    **options: Any,
) -> None:
    """Serve the application that MODULE:NAME holds, or those of a config file, behind Envoy, until Ctrl-C.

    NAME is what `.bind()` returned; without it, the module's only application. A config file is one of Ray Serve's own
    (`serve deploy` takes it too). A local Ray is started when there is none, and ended again with everything else.

    Each option of the ingress may also stand in an environment variable, such as SDK_GRPC_PORT, or in the `sdk:`
    section of a config file.

    With --reload, the files below the working directory, PYTHONPATH and the folder of a config file are watched, and
    code is generated as [tool.sdk.codegen] says. The new version takes over without losing a call; when it has an
    error, that is shown and the version before goes on.
    """
    given = {
        option: value
        for option, value in options.items()
        if context.get_parameter_source(option) is not ParameterSource.DEFAULT
    }
    wanted = {**from_environment(os.environ), **given}
    GrpcOptions(**wanted)  # what is wrong with the command line is said before anything is imported
    with Interrupts() as interrupts:
        from sdk.cli.ray_cluster import quiet_logs
        from sdk.cli.run.targets import find_served

        reloader = _prepare_reload(target) if reload else None
        served = find_served(target, name, allow_breaking)
        with quiet_logs():  # after Ray Serve was imported, which sets the levels of its logs
            failed = _Run(served, address, wanted, interrupts, reloader, allow_breaking).serve()
    if failed:
        context.exit(1)


def _prepare_reload(target: str) -> Reloader:
    """Bring generated code up to date, and note how all files are, before any of them is imported."""
    from sdk.cli.run.reload import Reloader, require_watchfiles

    require_watchfiles()
    reloader = Reloader(target)
    done = reloader.generate()
    if done:
        click.echo(done, err=True)
    return reloader


class _Run:
    """One call of the command.

    Args:
        served: What to serve.
        address: As on the command line.
        wanted: Options of the ingress by name, from the command line and the environment.
        interrupts: The signals.
        reloader: What deploys new versions, if any.
        allow_breaking: As on the command line.
    """

    def __init__(
        self,
        served: Served,
        address: str | None,
        wanted: Mapping[str, Any],
        interrupts: Interrupts,
        reloader: Reloader | None,
        allow_breaking: bool,
    ) -> None:
        from rich.console import Console

        self._served, self._address, self._interrupts = served, address, interrupts
        self._reloader, self._allow_breaking = reloader, allow_breaking
        self._wanted = {**served.options, **wanted}
        self._console = Console(stderr=True)
        self._deployed: list[str] = []
        self._failed: tuple[str, ...] = ()

    def serve(self) -> tuple[str, ...]:
        """Serve until a signal comes, and return the names of the applications that failed to start."""
        # Imported here: what is wrong with the command line or the module is said before Ray takes its seconds.
        from sdk._ingress.envoy.certificates import check_certificates
        from sdk._ingress.envoy.process import check_port, find_envoy
        from sdk._serve.api import start, stop_ingress
        from sdk._serve.owner_lease import OwnerLease
        from sdk.cli.ray_cluster import connect_or_start
        from sdk.cli.run.progress import failure, tell_what_it_waits_for

        served, interrupts = self._served, self._interrupts
        options = GrpcOptions(**self._wanted)
        find_envoy()

        def check_node() -> None:
            check_certificates(options)
            check_port(options.host, options.port)

        with contextlib.ExitStack() as cleanup, self._console.status("Starting …") as progress:
            # Stops the spinner before the last lines are printed.
            cleanup.callback(progress.stop)
            room = self._reloader is not None
            is_local = connect_or_start(self._address, cleanup, progress.update, check_node, has_spare_room=room)
            interrupts.install()
            progress.update("Starting the ingress …")
            if is_local:
                # Ray itself ends next, so Ray Serve need not be shut down apart from it.
                cleanup.callback(stop_ingress)
            cleanup.callback(interrupts.shield)
            end = _what_ends(self._deployed, is_local)
            tie = OwnerLease(end)

            def end_and_untie() -> None:
                end()
                tie.release()  # not when a second Ctrl-C ended the waiting: then the ingress does the rest

            cleanup.callback(end_and_untie)
            cleanup.callback(self._console.print, "Shutting down …", style="dim")
            served.start_serve()
            start(_options_beside(options, self._wanted))
            progress.update(f"Starting {_listed(served.names)} …")
            self._deployed += served.names
            if not is_local:
                tie.start()
            with tell_what_it_waits_for(served.names, functools.partial(self._tell, style="yellow")):
                try:
                    self._failed = served.deploy(lambda name, reason: self._tell(failure(name, reason)))
                except BreakingChangeError:
                    self._deployed.clear()  # the version that ran before goes on
                    raise
            progress.stop()
            if len(self._failed) < len(served.names):
                if self._reloader is not None:
                    self._start_reload(cleanup, is_local, tie)
                where = "a local Ray" if is_local else "the running Ray cluster"
                self._show_until_interrupted(f"on {where}. Ctrl-C ends it.")
        return self._failed

    def _start_reload(self, cleanup: contextlib.ExitStack, is_local: bool, tie: OwnerLease) -> None:
        import ray

        from sdk.cli.run.redeploy import Order

        assert self._reloader is not None
        served, address = self._served, ray.get_runtime_context().gcs_address

        def make_order() -> Order:
            before = tuple(self._deployed)
            return Order(served.target, served.given_name, address, is_local, self._allow_breaking, before)

        def deployed(is_done: bool) -> None:
            before = tuple(self._deployed)
            try:
                self._tell_if(served.refresh())
            except SdkError:
                return  # said already: it was not deployed
            # What of it was not done is not known; what does not run need not be ended.
            self._deployed[:] = served.names if is_done else dict.fromkeys([*before, *served.names])
            if is_done:
                self._failed = ()
            if not is_local and set(before) != set(self._deployed):
                tie.renew()

        cleanup.callback(self._reloader.stop)
        self._reloader.start(make_order, self._tell, deployed)

    def _tell(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _tell_if(self, text: str) -> None:
        if text:
            self._tell(text)

    def _show_until_interrupted(self, ending: str) -> None:
        from rich.console import Console
        from rich.live import Live

        from sdk._serve.api import status
        from sdk.cli.status_view import as_tables, as_text

        console = Console()
        forever = threading.Event()
        addresses = ", ".join(sorted({proxy.address for proxy in status().proxies}))

        def headline() -> str:
            running = [name for name in self._deployed if name not in self._failed]
            return f"Serving {_listed(running)} at {addresses} {ending}"

        try:
            if not console.is_terminal:
                click.echo(as_text(status()))
                click.echo(headline())
                forever.wait()
            with Live(as_tables(status(), headline()), console=console, auto_refresh=False) as live:
                self._console = console  # what is told stands above the tables
                while not forever.wait(_REFRESH_S):
                    live.update(as_tables(status(), headline()), refresh=True)
        except KeyboardInterrupt:
            return


def _options_beside(options: GrpcOptions, wanted: Mapping[str, Any]) -> GrpcOptions | None:
    """Return the options to start with: beside an ingress that runs, its own with what is wanted in their place."""
    import ray

    from sdk._ingress.cluster import find_controller

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
    from sdk._ingress.cluster import find_controller
    from sdk._serve.api import end_applications
    from sdk._serve.ingress_bootstrap import has_serve

    return functools.partial(
        end_applications,
        deployed,
        ends_serve=not is_local and not has_serve(),
        ends_ingress=not is_local and find_controller() is None,
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))

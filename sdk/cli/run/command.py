"""``sdk run``: serve an application, or those of a config file, until Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from codegen.console import error_line
from sdk._error_text import one_line
from sdk._ingress.env_options import from_environment
from sdk.cli.module_completion import complete_module_or_config
from sdk.cli.run.first_process import continue_in_child
from sdk.cli.run.quick_import import import_quickly
from sdk.cli.signals import SignalHandlers
from sdk.cli.target import traceback_option
from sdk.errors import ClusterError, SdkError
from sdk.options import ACCESS_LOG_TARGETS, GrpcOptions

if TYPE_CHECKING:
    from sdk._serve.owner_lease import OwnerLease
    from sdk.cli.ray_cluster import RunCluster
    from sdk.cli.run.reload import Reloader
    from sdk.cli.run.targets import ModuleTarget, RunTarget

_REFRESH_S = 1.0
_DEFAULTS = GrpcOptions()


def _absolute(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)  # keeps links: a new certificate may be a change of one


def _log_target(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    return path if path in ACCESS_LOG_TARGETS else _absolute(context, option, path)


@click.command(
    epilog="\b\nExamples:\n"
    "  sdk run app:app --name greeter --port 9000\n"
    "  sdk run app:app --reload\n"
    "  sdk run serve.yaml --address local"
)
@click.argument("target", metavar="MODULE[:NAME]|CONFIG.yaml", shell_complete=complete_module_or_config)
@click.option("--name", default=None, help="Name of the application, if it is that of a module.  [default: default]")
@click.option("--host", default=_DEFAULTS.host, show_default=True, help="IP address that Envoy listens on.")
@click.option("--port", type=int, default=_DEFAULTS.port, show_default=True, help="Port that Envoy listens on.")
@click.option(
    "--address",
    default=None,
    help="Ray cluster: HOST:PORT, or `local` for a new one.  [default: RAY_ADDRESS, a local cluster, or a new one]",
)
@click.option(
    "--request-timeout-s", type=float, default=None, help="Seconds after which a call ends with DEADLINE_EXCEEDED."
)
@click.option("--route-by-service", is_flag=True, help="Route calls without `application` metadata by their service.")
@click.option(
    "--error-details",
    type=click.Choice(["traceback", "message", "none"]),
    default=_DEFAULTS.error_details,
    show_default=True,
    help="Details of a handler's exception that clients receive.",
)
@click.option(
    "--tls-certificate",
    callback=_absolute,
    default=None,
    metavar="FILE",
    help="Certificate chain in PEM; enables TLS.",
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
    help="CA certificates in PEM; enables mutual TLS.",
)
@click.option(
    "--access-log",
    callback=_log_target,
    default=None,
    metavar="FILE",
    help="Append one line for each call to FILE; `stdout` for the output of the proxies, `otlp` for the collector "
    "that OTEL_EXPORTER_OTLP_ENDPOINT names.",
)
@click.option(
    "--access-log-format",
    type=click.Choice(["json", "text"]),
    default=_DEFAULTS.access_log_format,
    show_default=True,
    help="Format of these lines.",
)
@click.option("--access-log-failed-only", is_flag=True, help="Log only calls that do not end OK.")
@click.option(
    "--access-log-slow-s",
    type=float,
    default=None,
    help="Log only calls that last so many seconds (or fail, with both).",
)
@click.option(
    "--num-cpus",
    type=click.IntRange(min=1),
    default=None,
    help="CPUs that a new local Ray offers to replicas.  [default: those of the machine]",
)
@click.option("--dashboard", is_flag=True, help="Start a new local Ray with Ray's dashboard.")
@click.option("--quiet", is_flag=True, help="Leave out what the applications print and log.")
@click.option("--yes", is_flag=True, help="Do not ask whether a cluster that somebody else started is the right one.")
@click.option("--allow-breaking", is_flag=True, help="Update an application even if that breaks its clients.")
@click.option("--reload", is_flag=True, help="Deploy the new code when Python, proto or config files change.")
@traceback_option
@click.pass_context
def run(
    context: click.Context,
    /,
    target: str,
    name: str | None,
    address: str | None,
    allow_breaking: bool,
    num_cpus: int | None,
    dashboard: bool,
    reload: bool,
    quiet: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Serve the application MODULE:NAME, or those of a config file, behind Envoy, until Ctrl-C.

    NAME is the result of `.bind()`. Without NAME, serve the module's only application. A config file is one of Ray
    Serve, as for `serve deploy`. If no Ray cluster is running, start a local one, and stop it at the end.

    Each option of the ingress can also be set by an environment variable, such as SDK_GRPC_PORT, or in the `sdk:`
    section of a config file.

    With --reload, watch the files below the working directory, PYTHONPATH and the folder of the config file, and
    generate code as configured in [tool.sdk.codegen]. The new version takes over without losing a call. If it has an
    error, show that and keep serving the previous version.

    Show what the applications print and log, with application, deployment and process.

    Exit codes: 0 Ctrl-C while serving; 1 an application or the cluster failed, or has gone; 2 usage error; 130 Ctrl-C
    before that.
    """
    continue_in_child()
    given = {
        option: value
        for option, value in options.items()
        if context.get_parameter_source(option) is not ParameterSource.DEFAULT
    }
    wanted = {**from_environment(os.environ), **given}
    GrpcOptions(**wanted)  # reports errors of the command line before anything is imported
    with SignalHandlers() as signals:
        from sdk.cli.ray_cluster import quiet_logs
        from sdk.cli.run.targets import ModuleTarget, find_target

        reloader = _prepare_reload(target) if reload else None
        import_quickly("sdk._serve.api")
        run_target = find_target(target, name, allow_breaking)
        if isinstance(run_target, ModuleTarget) and reloader is None:  # which has generated all code
            _warn_of_changed_protos(run_target)
        if not isinstance(run_target, ModuleTarget):  # sdk.run warns of that
            _warn_of_missing_services(run_target)
        with quiet_logs():  # after the import of Ray Serve, which sets the levels of its logs
            command = _Run(
                run_target, address, wanted, signals, reloader, allow_breaking, quiet, yes, num_cpus, dashboard
            )
            is_well = command.serve()
    if not is_well:
        context.exit(1)


def _warn_of_missing_services(target: RunTarget) -> None:
    from sdk._serve.missing_services import explain_missing_services

    for name, application in target.applications.items():
        if reason := explain_missing_services(application):
            click.echo(f"warning: application {name!r} serves no gRPC call: {reason}", err=True)


def _warn_of_changed_protos(target: ModuleTarget) -> None:
    from sdk._serve.deployed_classes import deployed_classes
    from sdk.cli.changed_protos import changed_protos

    for changed in changed_protos(deployed_classes(target.application), only_newer=True):
        click.echo(f"warning: {changed}", err=True)


def _prepare_reload(target: str) -> Reloader:
    """Bring generated code up to date, and record the versions of all files, before any of them is imported."""
    from sdk.cli.run.reload import Reloader, require_watchfiles

    require_watchfiles()
    reloader = Reloader(target)
    done = reloader.generate()
    if done:
        click.echo(done, err=True)
    return reloader


class _Run:
    """One run of the command.

    Args:
        target: The applications to serve.
        address: As on the command line.
        wanted: Options of the ingress by name, from the command line and the environment.
        signals: The signal handlers.
        reloader: Deploys new versions; None without ``--reload``.
        allow_breaking: As on the command line.
        quiet: As on the command line.
        yes: As on the command line.
        num_cpus: As on the command line.
        dashboard: As on the command line.
    """

    def __init__(
        self,
        target: RunTarget,
        address: str | None,
        wanted: Mapping[str, Any],
        signals: SignalHandlers,
        reloader: Reloader | None,
        allow_breaking: bool,
        quiet: bool,
        yes: bool,
        num_cpus: int | None,
        dashboard: bool,
    ) -> None:
        from rich.console import Console

        self._target, self._address, self._signals = target, address, signals
        self._reloader, self._allow_breaking, self._quiet, self._yes = reloader, allow_breaking, quiet, yes
        self._num_cpus, self._dashboard = num_cpus, dashboard
        self._wanted = {**target.options, **wanted}
        self._console = Console(stderr=True)
        self._deployed: list[str] = []
        self._failed: tuple[str, ...] = ()
        self._loss = ""

    def serve(self) -> bool:
        """Serve until a signal comes; return False if an application failed to start, or what is served has gone."""
        # Imported here: errors of the command line or the module are shown before Ray is imported, which takes seconds.
        from sdk._ingress.cluster import find_controller
        from sdk._ingress.envoy.certificates import check_certificates
        from sdk._ingress.envoy.process import check_port, find_envoy
        from sdk._serve.api import begin_start, end_applications, stop_ingress
        from sdk._serve.ingress_bootstrap import has_serve
        from sdk._serve.owner_lease import OwnerLease
        from sdk.cli.cluster_origin import require_consent
        from sdk.cli.ray_cluster import connect_or_start
        from sdk.cli.run.application_output import show_output
        from sdk.cli.run.progress import failure, report_pending
        from sdk.cli.waiting import Waiting

        target, signals = self._target, self._signals
        options = GrpcOptions(**self._wanted)
        find_envoy()
        target.check()

        def check_before_start(num_cpus: int) -> None:
            check_certificates(options)
            check_port(options.host, options.port)
            self._check_cpus(num_cpus)

        with contextlib.ExitStack() as cleanup, Waiting("Starting …", self._console) as waiting:
            # Stops the spinner before the last lines are printed.
            cleanup.callback(waiting.stop)
            try:
                cluster = connect_or_start(
                    self._address,
                    cleanup,
                    waiting.update,
                    check_before_start,
                    num_cpus=self._num_cpus,
                    has_dashboard=self._dashboard,
                    has_spare_room=self._reloader is not None,
                    shows_output=not self._quiet,
                )
            except KeyboardInterrupt:  # the end of a Ray that starts takes seconds, too
                self._announce_end()
                raise
            signals.install()
            if cluster.origin is not None:
                with waiting.paused():
                    remedy = "; or start another one with --address local"
                    require_consent(cluster.origin, f"Serve {_listed(target.names)}", is_given=self._yes, remedy=remedy)
            self._check_resources(cluster)
            if not self._quiet:
                cleanup.enter_context(show_output(self._deployed, self._show_output, is_local=cluster.is_local))
            waiting.update("Starting the ingress …")
            if cluster.is_local:
                # Ray itself is shut down next, so Ray Serve does not need a separate shutdown.
                cleanup.callback(stop_ingress)
            cleanup.callback(signals.ignore)
            ends_serve = not cluster.is_local and not has_serve()
            ends_ingress = not cluster.is_local and find_controller() is None
            lease = OwnerLease(ends_serve=ends_serve, ends_ingress=ends_ingress)

            def shut_down_and_release() -> None:
                names = self._deployed if cluster.is_local else self._owned(lease)
                end_applications(names, ends_serve=ends_serve, ends_ingress=ends_ingress)
                lease.release()  # not after a second Ctrl-C, which ends the wait: then the ingress does the rest

            cleanup.callback(shut_down_and_release)
            cleanup.callback(self._announce_end)
            target.start_serve()
            begun = begin_start(_start_options(options, self._wanted))
            if not begun.is_first:
                begun.wait()
                target.check_running_version()
            waiting.update(f"Starting {_listed(target.names)} …")
            self._deployed += target.names
            if not cluster.is_local:
                lease.start(target.names)
            with report_pending(target.names, functools.partial(self._print, style="yellow")):
                self._failed = target.deploy(begun, lambda name, reason: self._print(failure(name, reason)))
            waiting.stop()
            if len(self._failed) < len(target.names):
                if self._reloader is not None:
                    self._start_reload(cleanup, cluster.is_local, lease)
                self._show_until_interrupted(cluster)
        return not self._failed and not self._loss

    def _announce_end(self) -> None:
        self._print("Shutting down …", style="dim")

    def _owned(self, lease: OwnerLease) -> tuple[str, ...]:
        """Return the applications to delete: not those that another program has deployed since."""
        owned = lease.owned()
        for name in self._deployed:
            if name not in owned:
                self._print(f"another program has deployed {name!r} since; it keeps running", "yellow")
        return owned

    def _check_cpus(self, offered: float) -> None:
        """Compare the CPUs that the replicas need with those of a local Ray, which finds its other resources itself.

        Raises:
            ClusterError: They are too few.
        """
        from sdk._serve.replica_resources import find_shortage

        needs = [replace(need, resources={"CPU": need.resources.get("CPU", 0.0)}) for need in self._target.needs]
        _require_room(find_shortage(needs, [{"CPU": offered}]))

    def _check_resources(self, cluster: RunCluster) -> None:
        """Compare the resources that the replicas need with those of the cluster, which Ray Serve waits for.

        Raises:
            ClusterError: A local Ray never has enough of them. Others may have an autoscaler: a warning is printed.
        """
        from sdk._serve.ray_connection import node_resources
        from sdk._serve.replica_resources import find_shortage

        shortage = find_shortage(self._target.needs, node_resources())
        if cluster.is_local:
            _require_room(shortage)
        elif shortage:
            self._print(f"warning: {shortage}: Ray Serve waits for an autoscaler, or for nodes that you add", "yellow")

    def _start_reload(self, cleanup: contextlib.ExitStack, is_local: bool, lease: OwnerLease) -> None:
        import ray

        from sdk.cli.run.redeploy import DeployRequest

        assert self._reloader is not None
        target, address = self._target, ray.get_runtime_context().gcs_address

        def make_request() -> DeployRequest:
            before = tuple(self._deployed)
            return DeployRequest(target.target, target.given_name, address, is_local, self._allow_breaking, before)

        def on_deployed(succeeded: bool) -> None:
            before = tuple(self._deployed)
            try:
                note = target.refresh()
            except SdkError:
                return  # the other process has reported it; nothing was deployed
            if note:
                self._print(note)
            # After a failure, some applications may be running. The shutdown ignores those that are not.
            self._deployed[:] = target.names if succeeded else dict.fromkeys([*before, *target.names])
            if succeeded:
                self._failed = ()
            if not is_local and set(before) != set(self._deployed):
                lease.renew(self._deployed)

        cleanup.callback(self._reloader.stop)
        self._reloader.start(make_request, self._print, on_deployed)

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _show_output(self, line: str, is_error: bool) -> None:
        if self._console.is_terminal:
            from rich.text import Text

            self._console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            click.echo(line, err=is_error)

    def _show_until_interrupted(self, cluster: RunCluster) -> None:
        from rich.console import Console
        from rich.live import Live

        from sdk._serve.api import status
        from sdk.cli.run.loss import LossWatch
        from sdk.cli.status_view import as_tables, as_text

        console = Console()
        current = status()
        addresses = ", ".join(sorted({proxy.address for proxy in current.proxies}))
        where = "a local Ray" if cluster.is_local else "the running Ray cluster"

        def headline() -> str:
            running = [name for name in self._deployed if name not in self._failed]
            return f"Serving {_listed(running)} at {addresses} on {where}. Press Ctrl-C to stop."

        hints = "\n".join(_hints(cluster, self._deployed, addresses, has_tls=bool(self._wanted.get("tls_certificate"))))
        watch = LossWatch(cluster.address, self._deployed, status)
        watch.start()
        try:
            if not console.is_terminal:
                click.echo(as_text(current))
                click.echo(hints)
                click.echo(headline())
                watch.over.wait()
            else:
                console.print(hints, markup=False, highlight=False, soft_wrap=True)
                with Live(as_tables(current, headline()), console=console, auto_refresh=False) as live:
                    self._console = console  # prints messages above the tables
                    while not watch.over.wait(_REFRESH_S):
                        live.update(as_tables(watch.status or current, headline()), refresh=True)
        except KeyboardInterrupt:
            watch.look_at_cluster()
        finally:
            watch.stop()
        self._loss = watch.loss
        if self._loss:
            self._print(error_line(self._loss))
        if watch.is_cluster_lost:
            cluster.abandon()


def _require_room(shortage: str) -> None:
    """Raise an error if a local Ray never has room for the replicas."""
    if shortage:
        raise ClusterError(
            f"{shortage[0].upper()}{shortage[1:]}: lower num_replicas or `ray_actor_options`; "
            "with --num-cpus, Ray counts more CPUs than there are."
        )


def _hints(cluster: RunCluster, names: Collection[str], addresses: str, *, has_tls: bool) -> list[str]:
    """Return the lines with Ray's address, the folder of the logs, and a call to try."""
    from sdk._serve.api import find_example_call

    lines = [f"Ray: {cluster.address}", f"Logs: {cluster.log_folder}"]
    if cluster.dashboard:
        lines.append(f"Dashboard: {cluster.dashboard}")
    found = None
    with contextlib.suppress(ClusterError):  # the application is served without the example, too
        found = find_example_call(names)
    if found is not None:
        application, method, request = found
        scheme = "https://" if has_tls else ""
        route = f" --application {shlex.quote(application)}" if len(names) > 1 else ""
        address = addresses.partition(",")[0]
        lines.append(f"Try: sdk call {scheme}{address} {method} -d {shlex.quote(request)}{route}")
    return lines


def _start_options(options: GrpcOptions, wanted: Mapping[str, Any]) -> GrpcOptions | None:
    """Return the options to start the ingress with; if it is running, its own options with the wanted ones replaced."""
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
        raise ClusterError(f"The ingress controller failed: {one_line(error)}") from error
    return replace(running, **wanted)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))

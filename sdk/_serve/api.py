"""Implements ``sdk.start``, ``run``, ``status``, ``delete`` and ``shutdown``, which ``sdk/_serving.py`` documents."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus as ServeState

from sdk._error_text import one_line
from sdk._guard.between_nodes import own_between_nodes
from sdk._ingress.allowed_services import resolve_services
from sdk._ingress.cluster import find_controller
from sdk._ingress.controller import IngressStatus, create_controller
from sdk._ingress.env_options import from_environment
from sdk._ingress.envoy.process import find_envoy
from sdk._serve.application import require_application
from sdk._serve.cold_start import deployments_without_replicas
from sdk._serve.example_call import example_call
from sdk._serve.import_path import give_import_path, refuse_hidden_package
from sdk._serve.ingress_bootstrap import explain_missing_ingress, has_serve
from sdk._serve.internals import (
    SERVE_LINK,
    application_overview,
    application_overviews,
    deploy_application,
    drop_stale_serve_client,
    find_serve_controller,
    request_deletion,
)
from sdk._serve.ray_connection import connect, find_cluster, ray_errors, start_local
from sdk._serve.readiness import wait_until_routed
from sdk._serve.starting import started, wait_until_deleted
from sdk._serve.status import combine
from sdk._serve.update_check import check_classes, check_update, warn_of_missing_services
from sdk._serving_status import Status
from sdk.errors import ClusterError, IngressError
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from sdk import _serve
    from sdk._serving import Serving

    _checked: Serving = _serve.api

logger = logging.getLogger("sdk.serve")

_START_TIMEOUT_S = 30.0
_DELETE_TIMEOUT_S = 5.0
_ANNOUNCE_TIMEOUT_S = 10.0
# Replicas receive changed options with their heartbeats; the lease of a dead replica expires after some seconds.
_CHANGE_TIMEOUT_S = 20.0


def start(options: GrpcOptions | None = None) -> None:
    """Implement :func:`sdk.start`."""
    begin_start(options).wait()


@dataclass(frozen=True, slots=True)
class Start:
    """The start of the ingress, which applications may be deployed during.

    Attributes:
        is_first: True if neither the ingress nor Ray Serve ran before: no application has clients yet.
        wait: Waits until the ingress serves; raises :class:`sdk.IngressError` if it can't, and stops it.
    """

    is_first: bool
    wait: Callable[[], None]


def begin_start(options: GrpcOptions | None) -> Start:
    """Begin to start the ingress, and start Ray Serve; with a running ingress, change its options.

    Raises:
        SdkError: As :func:`sdk.start`.
    """
    options = None if options is None else resolve_services(options)  # its errors need no cluster
    refuse_hidden_package()
    _connect()
    controller = find_controller()
    if controller is not None:
        if options is not None:
            _change_options(controller, options)
        _start_serve()
        return Start(is_first=False, wait=lambda: None)
    find_envoy()  # a missing Envoy fails here with one clear line, not in an actor
    wanted = resolve_services(GrpcOptions(**from_environment(os.environ))) if options is None else options
    is_first = not has_serve()
    # The process of the ingress starts while that of Ray Serve does.
    with ray_errors("The ingress can't be started"):
        controller = create_controller(wanted, SERVE_LINK)
    _start_serve()
    return Start(is_first, partial(_wait_for_ingress, controller, options))


def _start_serve() -> None:
    if not has_serve():
        with ray_errors("Ray Serve failed"):
            serve.start(proxy_location="Disabled")


def _wait_for_ingress(controller: Any, options: GrpcOptions | None) -> None:
    problem = _call(controller.wait_ready, _START_TIMEOUT_S, timeout_s=_START_TIMEOUT_S + 10)
    if problem:
        stop_ingress()
        raise IngressError(problem)
    if options is not None:
        _change_options(controller, options)  # another process may have created it at the same time


def _change_options(controller: Any, options: GrpcOptions) -> None:
    running: GrpcOptions = _call(controller.status).options
    different = running.differences(options)
    if not different:
        return
    fixed = running.fixed_differences(options)
    if fixed:
        raise IngressError(
            f"The ingress runs with other options ({different}), and {', '.join(fixed)} can't change at run time. "
            "Shut it down first, with sdk.shutdown() or `sdk shutdown`; or serve on another Ray cluster, with "
            "`sdk run --address local`."
        )
    late = _call(controller.reconfigure, options, _CHANGE_TIMEOUT_S, timeout_s=_CHANGE_TIMEOUT_S + 10)
    if late:
        raise IngressError(
            f"The options of the ingress were changed ({different}), but after {_CHANGE_TIMEOUT_S:g} s they do not yet "
            f"apply at: {late}. They apply there as soon as it answers; `sdk status` shows what does not answer."
        )


def run(
    target: Any, *, name: str = "default", options: GrpcOptions | None = None, allow_breaking: bool = False
) -> DeploymentHandle[Any]:
    """Implement :func:`sdk.run`."""
    application = require_application(target, "The target of sdk.run")
    check_classes(application)
    warn_of_missing_services(name, application)
    begun = begin_start(options)
    if not begun.is_first:
        begun.wait()
        check_running_version(name, application, allow_breaking)
        controller = find_controller()
        if controller is not None:
            _call(controller.claim_applications, [name])
    try:
        return deploy(application, name, begun)
    except IngressError:
        if begun.is_first:
            delete(name)
        raise


def deploy(application: serve.Application, name: str, begun: Start) -> DeploymentHandle[Any]:
    """Deploy an application behind the ingress, and wait until every proxy routes to it.

    Args:
        application: The application. If others ran before, :func:`check_running_version` has accepted it.
        name: Its name.
        begun: The start of the ingress, which this waits for after it has begun the deployment.

    Returns:
        The handle of its ingress deployment.

    Raises:
        ClusterError: The application failed to start, or Ray Serve does not answer.
        IngressError: An Envoy rejects the application's configuration.
    """
    give_import_path(application)
    with ray_errors("Ray Serve failed"):
        handle: DeploymentHandle[Any] = deploy_application(application, name)
    begun.wait()
    for _, failure in started([name]):
        if failure:
            raise ClusterError(f"Application {name!r} failed to start: {failure}")
    unannounced = deployments_without_replicas(application, name)
    controller = find_controller()
    if unannounced and controller is not None:
        _call(controller.announce, name, unannounced, _ANNOUNCE_TIMEOUT_S)
    wait_until_ready(name)
    if controller is not None:
        _warn_of_unserved(_call(controller.status))
    return handle


def _warn_of_unserved(ingress: IngressStatus) -> None:
    """Warn of names in ``grpc_servicer_functions`` that no application serves: perhaps one is misspelled."""
    served = {
        service
        for application in ingress.snapshot.applications
        for deployment in application.deployments
        for service in deployment.services
    }
    unserved = [name for name in ingress.options.grpc_servicer_functions or () if name not in served]
    if unserved:
        logger.warning("grpc_servicer_functions allows %s, which no application serves", ", ".join(unserved))


def wait_until_ready(name: str) -> None:
    """Wait until every proxy routes to all current replicas of an application.

    Args:
        name: The application's name.

    Raises:
        IngressError: It takes too long, or an Envoy rejects the application's configuration. Its replicas keep
            running.
        ClusterError: Ray can't be reached.
    """
    controller = find_controller()
    ingress: IngressStatus | None = controller and _call(controller.status)
    rejected = {
        str(refusal)
        for proxy in (ingress.proxies if ingress else ())
        for refusal in proxy.rejected_applications
        if refusal.application == name
    }
    if rejected:
        raise IngressError("; ".join(sorted(rejected)))
    wait_until_routed(name, status)


def end_applications(names: Iterable[str], *, ends_serve: bool, ends_ingress: bool) -> None:
    """Delete the applications that a command served; others on the cluster keep running.

    Args:
        names: Names of the applications.
        ends_serve: Shut down Ray Serve and the ingress too, unless another application is left.
        ends_ingress: Stop the ingress, unless it still routes to another application.

    Raises:
        ClusterError: Ray can't be reached.
    """
    names = tuple(names)
    serving = find_serve_controller()
    if serving is not None:
        request_deletion(serving, names)  # all at once; then wait for one after another
        for name in names:
            delete(name)
    if ends_serve and SERVE_LINK.list_deployments() == {}:
        shutdown()
    elif ends_ingress:
        controller = find_controller()
        if controller is not None and not _call(controller.status).snapshot.applications:
            stop_ingress()


def check_running_version(name: str, application: serve.Application, allow_breaking: bool) -> None:
    """Check that an application can replace the running one of its name.

    Args:
        name: The name.
        application: The new version.
        allow_breaking: Accept changes that break clients, and log them.

    Raises:
        BreakingChangeError: The update would break clients of the running version.
        ClusterError: Ray can't be reached.
    """
    controller = find_controller()
    if controller is None:
        return
    with ray_errors("Ray Serve failed"):
        running = application_overview(name)
    deployments = () if running is None or running.status is ServeState.DELETING else tuple(running.deployments)
    check_update(
        name,
        application,
        _call(controller.status).snapshot,
        deployments,
        lambda digest: _call(controller.descriptors, digest),
        allow_breaking=allow_breaking,
    )


def delete(name: str) -> None:
    """Implement :func:`sdk.delete`."""
    _connect(starts_ray=False)
    serving = find_serve_controller()
    if serving is not None:
        request_deletion(serving, [name])
        wait_until_deleted(name)
    controller = find_controller()
    if controller is not None:
        _call(controller.delete_application, name, _DELETE_TIMEOUT_S)


def status() -> Status:
    """Implement :func:`sdk.status`."""
    _connect(starts_ray=False)
    controller = find_controller()
    ingress: IngressStatus | None = _call(controller.status) if controller is not None else None
    with ray_errors("Ray Serve failed"):
        serving = application_overviews()
    applications, proxies = combine(serving, ingress)
    problem = explain_missing_ingress() if applications and controller is None else ""
    if ingress is not None and len(proxies) > 1 and ingress.options.identifies_clients:
        problem = _unguarded_nodes()
    return Status(applications, proxies, problem, ingress.snapshot.version if ingress is not None else 0)


def _unguarded_nodes() -> str:
    """Return what is missing for replicas to believe who calls from another node; empty if nothing is."""
    if own_between_nodes().mode != "none":
        return ""
    return (
        "nothing guards calls between nodes: for a call that reaches a replica from another node, its handler knows no "
        "client. Start Ray with RAY_AUTH_MODE=token or RAY_USE_TLS=1"
    )


def find_example_call(names: Collection[str]) -> tuple[str, str, str] | None:
    """Return a method that users can try: its application, ``"pkg.Service/Method"``, and a request as JSON.

    Args:
        names: The applications that may serve it.

    Raises:
        ClusterError: Ray can't be reached.
    """
    controller = find_controller()
    if controller is None:
        return None
    snapshot = _call(controller.status).snapshot
    return example_call(snapshot, names, lambda digest: _call(controller.descriptors, digest))


def shutdown() -> None:
    """Implement :func:`sdk.shutdown`."""
    _connect(starts_ray=False)
    with ray_errors("Ray Serve failed"):
        serve.shutdown()  # type: ignore[no-untyped-call]
    stop_ingress()


def stop_ingress() -> None:
    """Stop the proxies with their Envoys, and the controller. Applications keep running, for handles only."""
    controller = find_controller()
    if controller is not None:
        with contextlib.suppress(ClusterError):  # it is killed below in any case
            _call(controller.stop, timeout_s=20)
        ray.kill(controller)


def application_handle(name: str) -> DeploymentHandle[Any]:
    """Return Ray Serve's handle to the ingress deployment of an application.

    Args:
        name: The application's name.

    Raises:
        ClusterError: Ray Serve does not run, or has no such application.
    """
    _connect(starts_ray=False)
    with ray_errors("Ray Serve failed"):
        return serve.get_app_handle(name)


def _connect(*, starts_ray: bool = True) -> None:
    if ray.is_initialized():
        drop_stale_serve_client()
        return
    address = find_cluster(None)
    if starts_ray and address in (None, "local"):
        start_local(log_to_driver=False)
    else:
        connect(address, log_to_driver=False)


def _call(method: Any, *args: Any, timeout_s: float = 15.0) -> Any:
    try:
        return ray.get(method.remote(*args), timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        raise ClusterError(f"The ingress controller did not answer within {timeout_s:g} s.") from None
    except ray.exceptions.RayError as error:
        raise ClusterError(f"The ingress controller failed: {one_line(error)}") from error

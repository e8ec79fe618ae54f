"""Start the ingress, run applications, tell how they are, and shut everything down."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus as ServeState

from sdk._ingress.allowed_services import resolve_services
from sdk._ingress.cluster import find_controller
from sdk._ingress.controller import IngressStatus, create_controller
from sdk._ingress.env_options import from_environment
from sdk._ingress.envoy.process import find_envoy
from sdk._serve.application import require_application
from sdk._serve.cold_start import wake
from sdk._serve.failures import explain
from sdk._serve.ingress_bootstrap import deployed, has_serve, why_no_ingress
from sdk._serve.internals import delete_now, find_serve, forget_gone_serve
from sdk._serve.routing_check import wait_routed
from sdk._serve.status import Status, combine
from sdk._serve.update_check import check_classes, check_update
from sdk._serve.zero_replicas import sleepers
from sdk.errors import ClusterError, IngressError
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_START_PATIENCE_S = 30.0
_DELETE_PATIENCE_S = 5.0
_ANNOUNCE_PATIENCE_S = 10.0
# Replicas hear of changed options with their heartbeats; one that is dead is forgotten after some seconds.
_CHANGE_PATIENCE_S = 20.0


def start(options: GrpcOptions | None = None) -> None:
    """Start the ingress on the Ray cluster: a controller, and a proxy with Envoy on every node.

    Ray is started or joined as ``ray.init()`` does it when this process has not yet done so, and Ray Serve is started
    without its own proxies when it does not run. When the ingress runs with other options, those of them that can
    change while it runs are changed without losing a call; this returns when they are in force on every node and in
    every replica.

    Args:
        options: Options of the ingress; by default those it runs with, or those that ``SDK_GRPC_…`` environment
            variables set.

    Raises:
        IngressError: Envoy is missing, the port is taken, or the ingress runs with other options of which one can't
            change; then none was changed.
        OptionsError: A name in ``grpc_servicer_functions`` can't be imported, or an environment variable is wrong.
        ClusterError: Ray can't be reached.

    Example:
        >>> import sdk
        >>> sdk.start(sdk.GrpcOptions(port=9000))  # doctest: +SKIP
    """
    options = None if options is None else resolve_services(options)  # what is wrong there needs no cluster
    _connect()
    controller = find_controller()
    if controller is None:
        find_envoy()  # fails here with one clear line instead of in an actor
    elif options is not None:
        _change_options(controller, options)
    if not has_serve():
        with _serve_errors():
            serve.start(proxy_location="Disabled")
    if controller is not None:
        return
    wanted = resolve_services(GrpcOptions(**from_environment(os.environ))) if options is None else options
    controller = create_controller(wanted, deployed, has_serve, wake)
    problem = _call(controller.wait_ready, _START_PATIENCE_S, patience_s=_START_PATIENCE_S + 10)
    if problem:
        stop_ingress()
        raise IngressError(problem)
    if options is not None:
        _change_options(controller, options)  # somebody else may have created it at the same time


def _change_options(controller: Any, options: GrpcOptions) -> None:
    running: GrpcOptions = _call(controller.status).options
    different = running.differences(options)
    if not different:
        return
    fixed = running.fixed_differences(options)
    if fixed:
        raise IngressError(
            f"The ingress runs with other options ({different}), and {', '.join(fixed)} can't be changed while it "
            "runs. End it first, with sdk.shutdown() or `sdk shutdown`; or serve on another Ray, with "
            "`sdk run --address local`."
        )
    late = _call(controller.reconfigure, options, _CHANGE_PATIENCE_S, patience_s=_CHANGE_PATIENCE_S + 10)
    if late:
        raise IngressError(
            f"The options of the ingress were changed ({different}), but within {_CHANGE_PATIENCE_S:g} s they were not "
            f"in force at: {late}. There they will be as soon as it answers; `sdk status` shows what does not."
        )


def run(
    target: Any, *, name: str = "default", options: GrpcOptions | None = None, allow_breaking: bool = False
) -> DeploymentHandle[Any]:
    """Run an application behind the ingress; returns when every proxy routes to it.

    Args:
        target: What ``bind`` returned.
        name: The application's name: the value of the ``application`` metadata. An application of that name that runs
            already is updated without losing calls.
        options: Options of the ingress, as for :func:`start`.
        allow_breaking: Update an application although that breaks clients of the version that runs; it is logged.

    Returns:
        A handle to the application's ingress deployment.

    Raises:
        ApplicationError: ``target`` is not an application.
        DefinitionError: A class has changed since it was decorated, and does not fit its service.
        BreakingChangeError: The update would break clients of the version that runs. That version goes on.
        IngressError: The ingress can't be started, or an Envoy refuses to route to the application.
        ClusterError: Ray can't be reached, or the application failed to start; the text says why.

    Example:
        >>> import sdk
        >>> sdk.run(Greeter.bind("Hello"), name="greeter")  # doctest: +SKIP
    """
    application = require_application(target, "The target of sdk.run")
    check_classes(application)
    start(options)
    _check_update(name, application, allow_breaking)
    with _serve_errors():
        try:
            handle: DeploymentHandle[Any] = serve.run(application, name=name, route_prefix=None)
        except RuntimeError as error:
            raise ClusterError(f"Application {name!r} failed to start: {explain(name) or error}") from error
    sleeping = sleepers(application, name)
    controller = find_controller()
    if sleeping and controller is not None:
        _call(controller.announce, name, sleeping, _ANNOUNCE_PATIENCE_S)
    require_routed(name)
    return handle


def require_routed(name: str) -> None:
    """Wait until every proxy routes to an application as it runs now.

    Args:
        name: The application's name.

    Raises:
        IngressError: It takes too long, or an Envoy refuses the application; its replicas run, and stay.
        ClusterError: Ray can't be reached.
    """
    controller = find_controller()
    ingress: IngressStatus | None = controller and _call(controller.status)
    refused = {
        str(refusal)
        for proxy in (ingress.proxies if ingress else ())
        for refusal in proxy.rejected_applications
        if refusal.application == name
    }
    if refused:
        raise IngressError("; ".join(sorted(refused)))
    wait_routed(name, status)


def end(names: Iterable[str], *, ends_serve: bool, ends_ingress: bool) -> None:
    """End what a command served; what else runs on the cluster stays.

    Args:
        names: Its applications.
        ends_serve: Whether Ray Serve and the ingress end too when nothing else is left.
        ends_ingress: Whether the ingress ends when no application is left behind it.

    Raises:
        ClusterError: Ray can't be reached.
    """
    names = tuple(names)
    serving = find_serve()
    if serving is not None:
        delete_now(serving, names)  # all at once; then wait for each
        for name in names:
            delete(name)
    if ends_serve and deployed() == {}:
        shutdown()
    elif ends_ingress:
        controller = find_controller()
        if controller is not None and not _call(controller.status).snapshot.applications:
            stop_ingress()


def _check_update(name: str, application: serve.Application, allow_breaking: bool) -> None:
    controller = find_controller()
    if controller is None:
        return
    with _serve_errors():
        running = serve.status().applications.get(name)
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
    """Delete an application; its replicas finish their calls first.

    Args:
        name: The application's name.

    Raises:
        ClusterError: Ray can't be reached.
    """
    _connect(starts_ray=False)
    with _serve_errors():
        serve.delete(name)
    controller = find_controller()
    if controller is not None:
        _call(controller.delete_application, name, _DELETE_PATIENCE_S)


def status() -> Status:
    """Return the state of every application and proxy.

    Raises:
        ClusterError: Ray can't be reached.

    Example:
        >>> import sdk
        >>> sdk.status().is_healthy  # doctest: +SKIP
        True
    """
    _connect(starts_ray=False)
    controller = find_controller()
    ingress: IngressStatus | None = _call(controller.status) if controller is not None else None
    with _serve_errors():
        serving = serve.status()
    applications, proxies = combine(serving.applications, ingress)
    problem = why_no_ingress() if applications and controller is None else ""
    return Status(applications, proxies, problem, ingress.snapshot.version if ingress is not None else 0)


def shutdown() -> None:
    """Shut down every application, Ray Serve and the ingress. Ray itself stays. Does nothing when nothing runs.

    Raises:
        ClusterError: Ray can't be reached.
    """
    _connect(starts_ray=False)
    with _serve_errors():
        serve.shutdown()  # type: ignore[no-untyped-call]
    stop_ingress()


def stop_ingress() -> None:
    """Stop the proxies with their Envoys, and the controller. Applications go on, and are reached by handles only."""
    controller = find_controller()
    if controller is not None:
        with contextlib.suppress(ClusterError):  # it is ended all the same
            _call(controller.stop, patience_s=20)
        ray.kill(controller)


def handle(application: serve.Application) -> DeploymentHandle[Any]:
    """Type a bound Ray Serve deployment as the handle that it becomes in another deployment's constructor.

    Ray Serve replaces bound deployments among constructor arguments by handles; type checkers can't know. Deployments
    of the SDK need no such help.

    Args:
        application: What the ``bind`` of a ``serve.deployment`` returned.

    Returns:
        The same object.

    Example:
        >>> from ray import serve
        >>> class Downloader: ...
        >>> downloader = handle(serve.deployment(name="Downloader")(Downloader).bind())
    """
    bound: Any = application
    typed: DeploymentHandle[Any] = bound
    return typed


def _connect(*, starts_ray: bool = True) -> None:
    if ray.is_initialized():
        forget_gone_serve()
        return
    try:
        ray.init(address=None if starts_ray else "auto", log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"Ray can't be reached: {' '.join(str(error).split())}") from None


def _call(method: Any, *args: Any, patience_s: float = 15.0) -> Any:
    try:
        return ray.get(method.remote(*args), timeout=patience_s)
    except ray.exceptions.GetTimeoutError:
        raise ClusterError(f"The ingress controller did not answer within {patience_s:g} s.") from None
    except ray.exceptions.RayError as error:
        raise ClusterError(f"The ingress controller failed: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _serve_errors() -> Any:
    try:
        yield
    except (RayServeException, ray.exceptions.RayError, RuntimeError, TimeoutError, ConnectionError) as error:
        raise ClusterError(f"Ray Serve failed: {error}") from error

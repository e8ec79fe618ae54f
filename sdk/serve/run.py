"""Start the ingress, run applications, tell how they are, and shut everything down."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus as ServeState
from ray.serve.schema import ReplicaState  # type: ignore[attr-defined]  # where Ray Serve's own status has it from

from sdk.errors import ClusterError, IngressError
from sdk.ingress.actors import find_controller
from sdk.ingress.controller import IngressStatus, create
from sdk.ingress.envoy import find_envoy
from sdk.ingress.options import GrpcOptions
from sdk.serve.application import require_application
from sdk.serve.failures import explain
from sdk.serve.updates import check_classes, check_update

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_START_PATIENCE_S = 30.0
_DELETE_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment: its state in Ray Serve, and what of it the ingress routes to.

    Attributes:
        name: Its name.
        state: Ray Serve's word for its state, ``"HEALTHY"``.
        services: Full names of the proto services that it answers; empty when it is reached by handles only.
        replicas: Replicas that Ray Serve counts as running.
        endpoints: Addresses of the replicas that the ingress routes to.
        message: Ray Serve's message, when there is one.
    """

    name: str
    state: str
    services: tuple[str, ...]
    replicas: int
    endpoints: tuple[str, ...]
    message: str = ""


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """One application; ``state`` is Ray Serve's word, ``"RUNNING"``."""

    name: str
    state: str
    deployments: tuple[DeploymentStatus, ...]
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One proxy: where its Envoy listens, and whether it serves the newest routing table."""

    node_id: str
    address: str
    up_to_date: bool
    envoy_pid: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that runs. ``proxies`` is empty when the ingress does not run."""

    applications: tuple[ApplicationStatus, ...]
    proxies: tuple[ProxyStatus, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether every application runs and every proxy serves the newest routing table."""
        return (
            bool(self.proxies)
            and all(application.state == ServeState.RUNNING.value for application in self.applications)
            and all(proxy.up_to_date and not proxy.problem for proxy in self.proxies)
        )


def start(options: GrpcOptions | None = None) -> None:
    """Start the ingress on the Ray cluster: a controller, and a proxy with Envoy on every node.

    Ray is started or joined as ``ray.init()`` does it when this process has not yet done so, and Ray Serve is started
    without its own proxies when it does not run. Does nothing when the ingress runs with these options already.

    Args:
        options: Options of the ingress; by default those it runs with, or ``GrpcOptions()``.

    Raises:
        IngressError: Envoy is missing, the port is taken, or the ingress runs with other options.
        ClusterError: Ray can't be reached.

    Example:
        >>> import sdk
        >>> sdk.start(sdk.GrpcOptions(port=9000))  # doctest: +SKIP
    """
    _connect()
    running = find_controller()
    if running is not None:
        if options is not None:
            different = _call(running.status).options.differences(options)
            if different:
                raise IngressError(f"The ingress runs with other options ({different}); call sdk.shutdown() first.")
        return
    find_envoy()  # fails here with one clear line instead of in an actor
    with _serve_errors():
        serve.start(proxy_location="Disabled")
    controller = create(options or GrpcOptions(), deployed_applications)
    problem = _call(controller.wait_ready, _START_PATIENCE_S, patience_s=_START_PATIENCE_S + 10)
    if problem:
        stop_ingress()
        raise IngressError(problem)


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
        BreakingChangeError: The update would break clients of the version that runs. Nothing was changed.
        IngressError: The ingress can't be started.
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
    return handle


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
    routed = {
        (application.name, deployment.name): deployment
        for application in (ingress.snapshot.applications if ingress else ())
        for deployment in application.deployments
    }
    applications = []
    for name, overview in sorted(serving.applications.items()):
        deployments = []
        for deployment_name, deployment in sorted(overview.deployments.items()):
            known = routed.get((name, deployment_name))
            deployments.append(
                DeploymentStatus(
                    deployment_name,
                    deployment.status.value,
                    known.services if known else (),
                    deployment.replica_states.get(ReplicaState.RUNNING, 0),
                    tuple(f"{endpoint.host}:{endpoint.port}" for endpoint in known.endpoints) if known else (),
                    deployment.message,
                )
            )
        applications.append(ApplicationStatus(name, overview.status.value, tuple(deployments), overview.message))
    proxies = tuple(
        ProxyStatus(p.node_id, p.address, p.version == ingress.snapshot.version, p.envoy_pid, p.problem)
        for p in (ingress.proxies if ingress else ())
        if ingress is not None
    )
    return Status(tuple(applications), proxies)


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


def deployed_applications() -> set[str] | None:
    """Return the names of the applications that Ray Serve has, or None when it can't be asked now.

    The ingress controller calls it, so that it need not know Ray Serve.
    """
    try:
        return set(serve.status().applications)
    except (RayServeException, ray.exceptions.RayError):
        return None


def _connect(*, starts_ray: bool = True) -> None:
    if ray.is_initialized():
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

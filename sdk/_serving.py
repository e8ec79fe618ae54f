"""The functions ``sdk.start``, ``run``, ``status``, ``delete``, ``handle`` and ``shutdown``.

Their implementations in ``sdk/_serve/api.py`` are imported by name at the first call: neither a program that only calls
services nor a type checker that reads this module loads Ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Never, Protocol, cast

from sdk._extras import import_with_extra
from sdk.errors import OptionsError
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from sdk._serving_status import Status


class Serving(Protocol):
    """Functions of ``sdk/_serve/api.py``."""

    def start(self, options: GrpcOptions | None = None) -> None:
        """Implement :func:`start`."""

    def run(
        self, target: Any, *, name: str = "default", options: GrpcOptions | None = None, allow_breaking: bool = False
    ) -> Any:
        """Implement :func:`run`."""

    def delete(self, name: str) -> None:
        """Implement :func:`delete`."""

    def status(self) -> Status:
        """Implement :func:`status`."""

    def shutdown(self) -> None:
        """Implement :func:`shutdown`."""


def _serving(user: str) -> Serving:
    return cast("Serving", import_with_extra("sdk._serve.api", user))


# Arguments of serve.start and serve.run that have another place here.
_ELSEWHERE = {
    "blocking": "`sdk run MODULE:NAME` serves until Ctrl-C",
    "http_options": "call serve.start(http_options=…) before this; the ingress serves no HTTP applications",
    "local_testing_mode": "sdk.testing.serve serves applications without Ray",
    "logging_config": "give it to the deployment, @grpc_deployment(logging_config=…)",
    "route_prefix": "it is the path of HTTP requests; gRPC calls name the application in `application` metadata",
}


def _options(user: str, options: Any, grpc_options: Any, others: Mapping[str, Any]) -> GrpcOptions | None:
    """Return the options of the ingress, from whichever spelling was used.

    Args:
        user: Name of the function, for messages.
        options: Ours, or Ray Serve's ``gRPCOptions``.
        grpc_options: The same, under the name of ``serve.start``.
        others: Keyword arguments that the function does not have.

    Raises:
        OptionsError: An argument has another place, or is unknown; or the options are of another type.
    """
    ours = [field.name for field in fields(GrpcOptions)]
    problems = []
    for name, value in others.items():
        if name == "route_prefix" and value is None:
            continue  # as for an application of Ray Serve that serves gRPC only
        if name in _ELSEWHERE:
            problems.append(f"{name} has no effect on gRPC: {_ELSEWHERE[name]}")
        elif name in ours:
            problems.append(f"{name} is an option of the ingress: pass options=GrpcOptions({name}=…)")
        else:
            problems.append(f"unknown argument {name!r}")
    if options is not None and grpc_options is not None:
        problems.append("options and grpc_options are the same argument; pass one of them")
    given = grpc_options if options is None else options
    if given is not None and not isinstance(given, GrpcOptions) and not _is_of_serve(given):
        problems.append(f"options must be a GrpcOptions, not {given!r}")
    if problems:
        raise OptionsError(f"{user}: {'; '.join(problems)}")
    if given is None or isinstance(given, GrpcOptions):
        return given
    functions: Iterable[str] = given.grpc_servicer_functions or ()
    return GrpcOptions(
        port=given.port,
        grpc_servicer_functions=tuple(functions) or None,  # Ray Serve's default is an empty list
        request_timeout_s=given.request_timeout_s,
    )


def _is_of_serve(options: Any) -> bool:
    # By name: the import of Ray Serve takes a second.
    return type(options).__module__.startswith("ray.serve.") and type(options).__name__ == "gRPCOptions"


def start(options: GrpcOptions | None = None, *, grpc_options: GrpcOptions | None = None, **others: Never) -> None:
    """Start the ingress on the Ray cluster: a controller, and a proxy with Envoy on every node.

    If this process is not yet connected to Ray, ``ray.init()`` starts or joins a cluster. If Ray Serve does not run,
    it is started without its own proxies. If the ingress already runs with other options, those that can change at
    run time are changed without losing a call; this returns when they apply on every node and in every replica.

    Args:
        options: Options of the ingress. The default is the options of the running ingress, or those that the
            ``SDK_GRPC_…`` environment variables set. Ray Serve's ``gRPCOptions`` are accepted too.
        grpc_options: The same argument by its name in ``serve.start``.
        **others: None. For arguments of ``serve.start`` the error names their place here.

    Raises:
        IngressError: Envoy is missing, the port is taken, or an option differs from the running ingress's and can't
            change at run time; then no option was changed.
        OptionsError: A name in ``grpc_servicer_functions`` can't be imported, or an environment variable is wrong.
        ClusterError: Ray can't be reached.

    Example:
        >>> import sdk
        >>> sdk.start(sdk.GrpcOptions(port=9000))  # doctest: +SKIP
    """
    _serving("sdk.start").start(_options("sdk.start", options, grpc_options, others))


def run(
    target: Any,
    *,
    name: str = "default",
    options: GrpcOptions | None = None,
    allow_breaking: bool = False,
    grpc_options: GrpcOptions | None = None,
    **others: Never,
) -> Any:
    """Run an application behind the ingress and return when every proxy routes to it.

    Args:
        target: The result of ``bind``.
        name: The application's name, which clients send as ``application`` metadata. A running application of that
            name is updated without losing calls.
        options: Options of the ingress, as for :func:`start`.
        allow_breaking: Update even if that breaks clients of the running version; the breaking changes are logged.
        grpc_options: Another name of ``options``, that of ``serve.start``.
        **others: None. For arguments of ``serve.run`` the error names their place here; ``route_prefix=None`` is
            accepted.

    Returns:
        Ray Serve's ``DeploymentHandle`` of the application's ingress deployment.

    Raises:
        ApplicationError: ``target`` is not an application.
        DefinitionError: A class has changed since it was decorated, and no longer fits its service.
        BreakingChangeError: The update would break clients of the running version, which keeps running.
        IngressError: The ingress can't be started, or an Envoy rejects the routes to the application.
        ClusterError: Ray can't be reached, or the application failed to start; the message gives the reason.

    Example:
        >>> import sdk
        >>> sdk.run(Greeter.bind("Hello"), name="greeter")  # doctest: +SKIP
    """
    given = _options("sdk.run", options, grpc_options, others)
    return _serving("sdk.run").run(target, name=name, options=given, allow_breaking=allow_breaking)


def delete(name: str) -> None:
    """Delete an application; its replicas finish their calls first.

    Args:
        name: The application's name.

    Raises:
        ClusterError: Ray can't be reached.
    """
    _serving("sdk.delete").delete(name)


def status() -> Status:
    """Return the state of every application and proxy.

    Raises:
        ClusterError: Ray can't be reached.

    Example:
        >>> import sdk
        >>> sdk.status().is_healthy  # doctest: +SKIP
        True
    """
    return _serving("sdk.status").status()


def shutdown() -> None:
    """Shut down every application, Ray Serve and the ingress.

    Ray itself keeps running. Does nothing when nothing runs.

    Raises:
        ClusterError: Ray can't be reached.
    """
    _serving("sdk.shutdown").shutdown()


def handle(application: object) -> Any:
    """Cast the result of ``bind``, for type checkers, to what Ray Serve's own annotations ask for.

    Ray Serve replaces bound deployments among constructor arguments by handles, which type checkers can't know
    (https://docs.ray.io/en/latest/serve/model_composition.html). Use it for a deployment of Ray Serve that a typed
    ``bind`` gets, and for one of the SDK where the parameter is annotated with Ray Serve's ``DeploymentHandle``, or
    that ``serve.run`` gets. A parameter that is annotated with a generated handle needs no cast.

    Args:
        application: The result of ``bind``.

    Returns:
        The same object.

    Example:
        >>> from ray import serve
        >>> class Downloader: ...
        >>> downloader = handle(serve.deployment(name="Downloader")(Downloader).bind())
    """
    return application

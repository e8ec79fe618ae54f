"""How a replica comes to the ingress when nobody called ``sdk.start``: the first one to look for it creates it.

So it is with ``serve run``, ``serve deploy`` and the REST API, which KubeRay uses: no program of ours runs there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from sdk._ingress.allowed_services import resolve_services
from sdk._ingress.cluster import find_controller
from sdk._ingress.controller import create_controller
from sdk._ingress.env_options import variable
from sdk._serve.cold_start import wake
from sdk._serve.internals import find_serve, forget_gone_serve, serve_settings
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from sdk._serve.internals import ServeSettings

# Seconds that a new ingress gets until it serves.
_START_PATIENCE_S = 10.0
_SERVE_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Joined:
    """The ingress that a replica found or created.

    Attributes:
        controller: A handle to its controller; None when there must be none.
        problem: Why there is none, or why a new one does not serve; empty when all is well.
    """

    controller: Any | None
    problem: str = ""


def join_ingress(wanted: Mapping[str, Any]) -> Joined:
    """Return the ingress; create it when there is none. Any number of replicas may do so at once.

    Args:
        wanted: Options by name, from the environment. Ray Serve's own ``grpc_options`` stand behind them.

    Raises:
        ray.exceptions.RayError: Ray does not answer.
    """
    controller = find_controller()
    if controller is not None:
        return Joined(controller)
    controller = find_serve()
    settings = serve_settings(controller, _SERVE_PATIENCE_S) if controller is not None else None
    if settings is not None and (problem := conflict(settings, wanted)):
        return Joined(None, problem)
    options = resolve_services(options_behind(settings, wanted))
    controller = create_controller(options, deployed, has_serve, wake)
    problem = ray.get(controller.wait_ready.remote(_START_PATIENCE_S), timeout=_START_PATIENCE_S * 2)
    return Joined(controller, f"{problem} ({_choose_port()})" if problem else "")


def conflict(settings: ServeSettings, wanted: Mapping[str, Any]) -> str:
    """Return why the ingress can't listen beside Ray Serve's own gRPC proxy; empty when it can.

    Example:
        >>> from sdk._serve.internals import ServeSettings
        >>> own = ServeSettings("EveryNode", 9000, None, True, ())
        >>> conflict(own, {"port": 9001})
        ''
    """
    if not settings.has_grpc_proxy or wanted.get("port", settings.grpc_port) != settings.grpc_port:
        return ""
    return (
        f"the ingress does not run, because Ray Serve's own gRPC proxy listens on port {settings.grpc_port}: it serves "
        "the calls, without what the ingress adds. For the ingress leave grpc_servicer_functions out of Ray Serve's "
        f"grpc_options, or {_choose_port()}"
    )


def options_behind(settings: ServeSettings | None, wanted: Mapping[str, Any]) -> GrpcOptions:
    """Return the options of a new ingress: those that are wanted, and behind them what Ray Serve was told.

    Example:
        >>> from sdk._serve.internals import ServeSettings
        >>> told = ServeSettings("Disabled", 9005, 4.0, False, ())
        >>> options = options_behind(told, {"host": "0.0.0.0"})
        >>> options.host, options.port, options.request_timeout_s, options.proxy_location
        ('0.0.0.0', 9005, 4.0, 'EveryNode')
    """
    told: dict[str, Any] = {}
    if settings is not None:
        told = {"port": settings.grpc_port, "request_timeout_s": settings.grpc_request_timeout_s}
        if settings.proxy_location == "HeadOnly":  # "Disabled" is about Ray Serve's own proxies
            told["proxy_location"] = "HeadOnly"
    return GrpcOptions(**{**told, **wanted})


def why_no_ingress() -> str:
    """Return why no ingress runs although Ray Serve does; empty when nothing is known to keep it away."""
    controller = find_serve()
    if controller is None:
        return ""
    try:
        return conflict(serve_settings(controller, _SERVE_PATIENCE_S), {})
    except ray.exceptions.RayError as error:
        return f"Ray Serve does not answer ({type(error).__name__})"


def deployed() -> dict[str, tuple[str, ...]] | None:
    """Return the deployments of each application that Ray Serve has, or None when it can't be asked now.

    The ingress controller calls it, so that it need not know Ray Serve.
    """
    forget_gone_serve()
    try:
        return {name: tuple(known.deployments) for name, known in serve.status().applications.items()}
    except (RayServeException, ray.exceptions.RayError):
        return None


def has_serve() -> bool:
    """Return whether Ray Serve runs. While its controller restarts, it does."""
    return find_serve() is not None


def _choose_port() -> str:
    return f"choose another port for it with the environment variable {variable('port')} of the cluster or runtime_env"

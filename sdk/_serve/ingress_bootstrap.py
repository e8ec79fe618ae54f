"""Create the ingress from a replica: the first replica that finds no ingress creates it.

This serves applications that are deployed without ``sdk.start``: by ``serve run``, by ``serve deploy``, or by the REST
API, which KubeRay uses. No program of the SDK runs there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from sdk._ingress.allowed_services import resolve_services
from sdk._ingress.cluster import find_controller
from sdk._ingress.env_options import variable
from sdk._serve.internals import SERVE_LINK, find_serve_controller, serve_settings
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from sdk._serve.internals import ServeSettings

# Seconds to wait until a new ingress serves.
_START_TIMEOUT_S = 30.0
_SERVE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class FoundIngress:
    """The ingress that a replica found or created.

    Attributes:
        controller: A handle to its controller; None if the ingress must not run.
        problem: The reason why the ingress does not run or does not serve; empty if it serves.
        opened: Address that a new ingress listens on; empty if it ran before, or does not serve.
    """

    controller: Any | None
    problem: str = ""
    opened: str = ""


def find_or_create_ingress(wanted: Mapping[str, Any]) -> FoundIngress:
    """Return the ingress, and create it if it does not exist. Any number of replicas may call this at once.

    Args:
        wanted: Options by name, from the environment. They override Ray Serve's own ``grpc_options``.

    Raises:
        ray.exceptions.RayError: Ray does not answer.
    """
    controller = find_controller()
    if controller is not None:
        return FoundIngress(controller)
    controller = find_serve_controller()
    settings = serve_settings(controller, _SERVE_TIMEOUT_S) if controller is not None else None
    if settings is not None and (problem := port_conflict(settings, wanted)):
        return FoundIngress(None, problem)
    # Importing it takes a tenth of a replica's start, with the proxy and all of Envoy's configuration.
    from sdk._ingress.controller import create_controller

    options = resolve_services(initial_options(settings, wanted))
    controller = create_controller(options, SERVE_LINK)
    problem = ray.get(controller.wait_ready.remote(_START_TIMEOUT_S), timeout=_START_TIMEOUT_S * 2)
    if problem:
        return FoundIngress(controller, f"{problem} (if another process uses its port, {_choose_port()})")
    return FoundIngress(controller, opened=f"{options.host}:{options.port}")


def port_conflict(settings: ServeSettings, wanted: Mapping[str, Any]) -> str:
    """Return the reason why the ingress can't run next to Ray Serve's own gRPC proxy; empty if it can.

    Example:
        >>> from sdk._serve.internals import ServeSettings
        >>> own = ServeSettings("EveryNode", 9000, None, True, ())
        >>> port_conflict(own, {"port": 9001})
        ''
    """
    if not settings.has_grpc_proxy or wanted.get("port", settings.grpc_port) != settings.grpc_port:
        return ""
    return (
        f"the ingress does not run, because Ray Serve's own gRPC proxy listens on port {settings.grpc_port}: it serves "
        "the calls, without the features of the ingress. To use the ingress, remove grpc_servicer_functions from Ray "
        f"Serve's grpc_options, or {_choose_port()}"
    )


def initial_options(settings: ServeSettings | None, wanted: Mapping[str, Any]) -> GrpcOptions:
    """Return the options of a new ingress: Ray Serve's own settings, overridden by the wanted options.

    Example:
        >>> from sdk._serve.internals import ServeSettings
        >>> settings = ServeSettings("Disabled", 9005, 4.0, False, ())
        >>> options = initial_options(settings, {"host": "0.0.0.0"})
        >>> options.host, options.port, options.request_timeout_s, options.proxy_location
        ('0.0.0.0', 9005, 4.0, 'EveryNode')
    """
    inherited: dict[str, Any] = {}
    if settings is not None:
        inherited = {"port": settings.grpc_port, "request_timeout_s": settings.grpc_request_timeout_s}
        if settings.proxy_location == "HeadOnly":  # "Disabled" applies only to Ray Serve's own proxies
            inherited["proxy_location"] = "HeadOnly"
    return GrpcOptions(**{**inherited, **wanted})


def explain_missing_ingress() -> str:
    """Return the reason why Ray Serve runs without an ingress; empty if no reason is known."""
    controller = find_serve_controller()
    if controller is None:
        return ""
    try:
        return port_conflict(serve_settings(controller, _SERVE_TIMEOUT_S), {})
    except ray.exceptions.RayError as error:
        return f"Ray Serve does not answer ({type(error).__name__})"


def has_serve() -> bool:
    """Return True if Ray Serve runs. It counts as running while its controller restarts."""
    return SERVE_LINK.is_running()


def _choose_port() -> str:
    return f"choose another port for it with the environment variable {variable('port')} of the cluster or runtime_env"

"""Run the applications of a config file: Ray Serve builds and updates them, as with ``serve deploy``."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import ray
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus as ServeState

from sdk._serve.api import require_routed
from sdk._serve.application import CODE_VERSION
from sdk._serve.failures import explain
from sdk._serve.internals import deploy_declared, find_serve, serve_settings
from sdk.errors import ClusterError, IngressError

if TYPE_CHECKING:
    from ray.serve.schema import ServeApplicationSchema

    from sdk._serve.config_file import ServeConfig

_POLL_S = 0.25
_SERVE_PATIENCE_S = 15.0
_FAILED = (ServeState.DEPLOY_FAILED, ServeState.UNHEALTHY)


def start_serve(config: ServeConfig) -> None:
    """Start Ray Serve as a config wants it. Does nothing when it runs.

    Its own gRPC proxy never starts, and its HTTP proxies only when the config has ``http_options``.

    Raises:
        ClusterError: Ray Serve can't be started.
    """
    if find_serve() is not None:
        return
    schema = config.schema
    try:
        serve.start(
            proxy_location=schema.proxy_location if config.serves_http else "Disabled",
            http_options=schema.http_options.model_dump() if config.serves_http else None,
            logging_config=schema.logging_config,
        )
    except (RayServeException, ray.exceptions.RayError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"Ray Serve can't be started: {' '.join(str(error).split())}") from error


def deploy(config: ServeConfig, *, before: Collection[str] = (), has_new_code: bool = False) -> None:
    """Hand a config to Ray Serve. Applications that others have deployed from config files stay.

    Args:
        config: The config.
        before: The applications that an earlier version of it had; those that it no longer has are deleted.
        has_new_code: Whether the applications' code has changed, which Ray Serve does not look at: each is built again
            and its replicas are replaced, without losing calls.

    Raises:
        ClusterError: Ray Serve does not answer, or refuses the config.
    """
    serving = find_serve()
    if serving is None:
        raise ClusterError("Ray Serve does not run.")
    version = uuid.uuid4().hex if has_new_code else ""
    try:
        settings = serve_settings(serving, _SERVE_PATIENCE_S)
        others = [app for app in settings.declared if app.name not in config.names and app.name not in before]
        ours = [_complete(application, config, version) for application in config.schema.applications]
        changed: dict[str, object] = {"applications": [*ours, *others]}
        if others and config.schema.target_capacity is None:
            changed["target_capacity"] = settings.target_capacity
        deploy_declared(serving, config.schema.model_copy(update=changed))
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray Serve refuses {config.path}: {' '.join(str(error).split())}") from error


def wait_until_started(config: ServeConfig, failed: Callable[[str, str], None]) -> tuple[str, ...]:
    """Wait until every application of a config runs or has failed; one that fails does not stop the others.

    Args:
        config: The config, which was deployed.
        failed: Called with the name of each application that failed, when it does, and with the reason.

    Returns:
        The names of those that failed.

    Raises:
        ClusterError: Ray Serve does not answer.
    """
    waiting = set(config.names)
    failures: list[str] = []
    while waiting:
        try:
            applications = serve.status().applications
        except (RayServeException, ray.exceptions.RayError) as error:
            raise ClusterError(f"Ray Serve failed: {error}") from error
        for name in sorted(waiting & applications.keys()):
            state = applications[name].status
            if state not in (*_FAILED, ServeState.RUNNING):
                continue
            waiting.discard(name)
            reason = _why_not_routed(name) if state is ServeState.RUNNING else explain(name) or "Ray Serve says no more"
            if reason:
                failures.append(name)
                failed(name, reason)
        time.sleep(_POLL_S if waiting else 0)
    return tuple(failures)


def _why_not_routed(name: str) -> str:
    try:
        require_routed(name)
    except IngressError as error:
        return str(error)
    return ""


def _complete(application: ServeApplicationSchema, config: ServeConfig, version: str) -> ServeApplicationSchema:
    """Return an application with what its workers must know of this process."""
    runtime_env = dict(application.runtime_env)
    variables = dict(runtime_env.get("env_vars") or {})
    if not (runtime_env.get("working_dir") or runtime_env.get("py_modules")):
        path = [*config.folders, os.environ.get("PYTHONPATH", "")]
        variables.setdefault("PYTHONPATH", os.pathsep.join(part for part in path if part))
    if version:
        variables[CODE_VERSION] = version
    changed: dict[str, object] = {"runtime_env": {**runtime_env, "env_vars": variables}}
    if not config.serves_http:
        changed["route_prefix"] = None
    return application.model_copy(update=changed)

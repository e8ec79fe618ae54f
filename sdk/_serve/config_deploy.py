"""Deploy the applications of a config file through Ray Serve's config API, as ``serve deploy`` does.

See https://docs.ray.io/en/latest/serve/production-guide/config.html.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import ray
from ray import serve

from sdk._error_text import one_line
from sdk._serve.api import wait_until_ready
from sdk._serve.application import CODE_VERSION
from sdk._serve.import_path import has_own_serve, refuse_hidden_modules
from sdk._serve.internals import apply_config, find_serve_controller, serve_settings
from sdk._serve.ray_connection import ray_errors
from sdk._serve.starting import started
from sdk.errors import ClusterError, IngressError

if TYPE_CHECKING:
    from ray.serve.schema import ServeApplicationSchema

    from sdk._serve.config_file import ServeConfig

_SERVE_TIMEOUT_S = 15.0


def start_serve(config: ServeConfig) -> None:
    """Start Ray Serve with the options of a config. Does nothing when it runs.

    Ray Serve's own gRPC proxy never starts, and its HTTP proxies start only when the config has ``http_options``.

    Raises:
        ClusterError: Ray Serve can't be started.
    """
    if find_serve_controller() is not None:
        return
    schema = config.schema
    with ray_errors("Ray Serve can't be started"):
        serve.start(
            proxy_location=schema.proxy_location if config.serves_http else "Disabled",
            http_options=schema.http_options.model_dump() if config.serves_http else None,
            logging_config=schema.logging_config,
        )


def deploy(config: ServeConfig, *, before: Collection[str] = (), has_new_code: bool = False) -> None:
    """Submit a config to Ray Serve. Applications that others have deployed from config files stay.

    Args:
        config: The config.
        before: Applications of its earlier version; those that are no longer in the config are deleted.
        has_new_code: The applications' code has changed, which Ray Serve does not notice. Each application is built
            again and its replicas are replaced, without losing calls.

    Raises:
        ClusterError: Ray Serve does not answer, or rejects the config.
    """
    serving = find_serve_controller()
    if serving is None:
        raise ClusterError("Ray Serve does not run.")
    version = uuid.uuid4().hex if has_new_code else ""
    try:
        settings = serve_settings(serving, _SERVE_TIMEOUT_S)
        names = {*config.names, *before}
        others = [application for application in settings.config_applications if application.name not in names]
        path = _import_path(config)
        if path:
            refuse_hidden_modules(path)
        own = [_complete(application, path, config.serves_http, version) for application in config.schema.applications]
        changed: dict[str, object] = {"applications": [*own, *others]}
        if others and config.schema.target_capacity is None:
            changed["target_capacity"] = settings.target_capacity
        apply_config(serving, config.schema.model_copy(update=changed))
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray Serve rejects {config.path}: {one_line(error)}") from error


def wait_until_started(config: ServeConfig, failed: Callable[[str, str], None]) -> tuple[str, ...]:
    """Wait until every application of a config runs or has failed; a failure does not stop the others.

    Args:
        config: The config, which was deployed.
        failed: Called for each application that fails, as soon as it does, with its name and the reason.

    Returns:
        The names of the applications that failed.

    Raises:
        ClusterError: Ray Serve does not answer.
    """
    failures: list[str] = []
    for name, start_failure in started(config.names):
        reason = start_failure or _routing_failure(name)
        if reason:
            failures.append(name)
            failed(name, reason)
    return tuple(failures)


def _routing_failure(name: str) -> str:
    try:
        wait_until_ready(name)
    except IngressError as error:
        return str(error)
    return ""


def _import_path(config: ServeConfig) -> str:
    """Return the ``PYTHONPATH`` that workers need for the modules of a config; empty if Ray has them import from there.

    Ray starts Python and imports itself twice in a worker whose environment has a variable more, and can't use one that
    it has started in advance. The folder of a file elsewhere is not added to the path of this program's job: that comes
    before the ``PYTHONPATH`` of other programs on this Ray Serve, whose files may have modules of the same names.
    """
    if config.folders == (os.getcwd(),) and has_own_serve():
        return ""
    return os.pathsep.join(part for part in (*config.folders, os.environ.get("PYTHONPATH", "")) if part)


def _complete(
    application: ServeApplicationSchema, path: str, serves_http: bool, version: str
) -> ServeApplicationSchema:
    """Return an application with the environment that its workers need: the import path and the version of the code."""
    runtime_env = dict(application.runtime_env)
    variables = dict(runtime_env.get("env_vars") or {})
    if path and not (runtime_env.get("working_dir") or runtime_env.get("py_modules")):
        variables.setdefault("PYTHONPATH", path)
    if version:
        variables[CODE_VERSION] = version
    changed: dict[str, object] = {"runtime_env": {**runtime_env, "env_vars": variables} if variables else runtime_env}
    if not serves_http:
        changed["route_prefix"] = None
    return application.model_copy(update=changed)

"""Applications of a config file, built in this process to check them before Ray Serve builds them in a worker."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sdk._serve.config_file import BRINGS_CODE
from sdk._serve.deployed_classes import bound_deployments
from sdk._serve.internals import build_configured
from sdk._serve.replica_resources import ReplicaNeeds, needs_of
from sdk.errors import OptionsError, SdkError

if TYPE_CHECKING:
    from ray.serve.schema import DeploymentSchema, ServeApplicationSchema

    from sdk._serve.config_file import ServeConfig


def load_applications(config: ServeConfig) -> dict[str, Any]:
    """Return the applications of a config by name, without those that can't be built here.

    Args:
        config: The config; its folders are on ``sys.path``.

    Raises:
        OptionsError: The SDK refuses one of their classes or bindings.
    """
    found = {}
    for index, application in enumerate(config.schema.applications):
        if any(application.runtime_env.get(key) for key in BRINGS_CODE):
            continue  # its modules need not be on this machine
        try:
            found[application.name] = _build(application)
        except SdkError as error:
            line = config.line_of(("applications", index, "import_path"))
            raise OptionsError(f"{config.path}:{line}: application {application.name!r}: {error}") from None
        except (Exception, SystemExit):
            # Ray Serve builds it next, and reports the reason with the application's status.
            continue
    return found


def check_deployment_names(config: ServeConfig, applications: Mapping[str, Any]) -> None:
    """Check that each deployment that a config names is in its application.

    Args:
        config: The config.
        applications: Those that could be built.

    Raises:
        OptionsError: Some are not; the message lists them with their lines.
    """
    problems = [
        f"  - {config.path}:{line}: application {application!r} has no deployment {name!r}; {remedy}"
        for line, application, name, remedy in _unknown_deployments(config, applications)
    ]
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        raise OptionsError("\n".join([f"{config.path}: {count}", *problems]))


def configured_needs(config: ServeConfig, applications: Mapping[str, Any]) -> list[ReplicaNeeds]:
    """Return the resources that the applications of a config need at their start.

    Args:
        config: The config, whose options replace those of the code.
        applications: Those that could be built.
    """
    return [
        need
        for application in config.schema.applications
        if application.name in applications
        for need in needs_of(
            application.name,
            applications[application.name],
            {deployment.name: _options(deployment) for deployment in application.deployments},
        )
    ]


def _build(application: ServeApplicationSchema) -> Any:
    path = application.import_path
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return build_configured(target, application.args)


def _options(deployment: DeploymentSchema) -> dict[str, Any]:
    return deployment.model_dump(exclude_unset=True)


def _unknown_deployments(config: ServeConfig, applications: Mapping[str, Any]) -> Iterator[tuple[int, str, str, str]]:
    for index, application in enumerate(config.schema.applications):
        if application.name not in applications:
            continue
        known = [deployment.name for deployment in bound_deployments(applications[application.name])]
        for position, deployment in enumerate(application.deployments):
            if deployment.name not in known:
                near = difflib.get_close_matches(deployment.name, known, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, known))}"
                line = config.line_of(("applications", index, "deployments", position, "name"))
                yield line, application.name, deployment.name, remedy

"""Targets of ``sdk run``: the application of a module, or those of a config file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sdk.cli.target import load_target
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk._serve.api import Start
    from sdk._serve.config_file import ServeConfig
    from sdk._serve.replica_resources import ReplicaNeeds

_DEFAULT_NAME = "default"
_CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


class RunTarget(Protocol):
    """Applications that are ready to be deployed."""

    target: str
    """The target on the command line."""

    given_name: str | None
    """The application's name on the command line, or None."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the applications."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the ingress that the target sets, by name."""

    @property
    def applications(self) -> Mapping[str, Any]:
        """The applications by name, without those that only Ray Serve can build."""

    @property
    def needs(self) -> Sequence[ReplicaNeeds]:
        """The resources that these applications need at their start."""

    def start_serve(self) -> None:
        """Start Ray Serve with the options of the target, if it has some and Ray Serve is not running."""

    def check_running_version(self) -> None:
        """Check that the applications can replace those that run. The ingress must run.

        Raises:
            BreakingChangeError: They would break clients.
        """

    def check(self) -> None:
        """Check what needs no cluster.

        Raises:
            DefinitionError: A class no longer fits its service.
        """

    def deploy(self, begun: Start, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy the applications and wait until they run.

        Args:
            begun: The start of the ingress, which continues meanwhile.
            failed: Called with the name of an application that failed to start and the reason, while others continue.

        Returns:
            The names of those that failed.

        Raises:
            ClusterError: No application was started.
        """

    def deploy_again(self, before: Collection[str], failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Check and deploy new versions of running applications with the current code. Otherwise like :meth:`deploy`.

        Args:
            before: The applications of the previous version; those that no longer exist are deleted.
            failed: As for :meth:`deploy`.
        """

    def refresh(self) -> str:
        """Read the target again after another process has deployed a new version of it.

        Returns:
            A note on changes that take effect only after a restart; ``""`` if there are no such changes.

        Raises:
            SdkError: The target can't be read.
        """


class ModuleTarget:
    """The application ``MODULE:NAME``.

    Args:
        spec: ``"app:app"``, or ``"app"`` for a module's only application.
        name: The application's name.
        allow_breaking: Whether to update the application even if that breaks its clients.
    """

    options: Mapping[str, Any] = {}

    def __init__(self, spec: str, name: str | None, allow_breaking: bool = False) -> None:
        from sdk._serve.application import only_application, require_application

        module, found = load_target(spec)
        self.target, self.given_name = spec, name
        self.names: tuple[str, ...] = (name or _DEFAULT_NAME,)
        self._allow_breaking = allow_breaking
        self.application: Any = only_application(module) if found is None else require_application(found, spec)

    @property
    def applications(self) -> Mapping[str, Any]:
        """The application by its name."""
        return {self.names[0]: self.application}

    @property
    def needs(self) -> Sequence[ReplicaNeeds]:
        """The resources that it needs at its start."""
        from sdk._serve.replica_resources import needs_of

        return needs_of(self.names[0], self.application)

    def start_serve(self) -> None:
        """Do nothing: the ingress starts Ray Serve."""

    def check(self) -> None:
        """Compare the classes with their services again, and warn if there is no service."""
        from sdk._serve.update_check import check_classes, warn_of_missing_services

        check_classes(self.application)
        warn_of_missing_services(self.names[0], self.application)

    def check_running_version(self) -> None:
        """Compare it with the running application of its name."""
        from sdk._serve.api import check_running_version

        check_running_version(self.names[0], self.application, self._allow_breaking)

    def deploy(self, begun: Start, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy the application and wait until it runs."""
        from sdk._serve.api import deploy

        deploy(self.application, self.names[0], begun)
        return ()

    def deploy_again(self, before: Collection[str], failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy the application: Ray Serve treats each deployment from a program as a new version."""
        from sdk._serve.api import begin_start

        begun = begin_start(None)  # Ray Serve may have been shut down meanwhile, and would start its own proxies
        begun.wait()
        self.check()
        self.check_running_version()
        return self.deploy(begun, failed)

    def refresh(self) -> str:
        """Do nothing: the name does not change."""
        return ""


class ConfigTarget:
    """The applications of a config file.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        from sdk._serve.config_applications import check_deployment_names, load_applications
        from sdk._serve.config_file import read_config

        self.target = path
        self.given_name: str | None = None
        self.config: ServeConfig = read_config(path)
        # The modules in grpc_servicer_functions are imported in this process.
        sys.path[:0] = [folder for folder in self.config.folders if folder not in sys.path]
        self.applications: Mapping[str, Any] = load_applications(self.config)
        check_deployment_names(self.config, self.applications)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the applications."""
        return self.config.names

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the ingress in the file."""
        return self.config.options

    @property
    def needs(self) -> Sequence[ReplicaNeeds]:
        """The resources that the applications need at their start."""
        from sdk._serve.config_applications import configured_needs

        return configured_needs(self.config, self.applications)

    def start_serve(self) -> None:
        """Start Ray Serve with the options of the file."""
        from sdk._serve.config_deploy import start_serve

        start_serve(self.config)

    def check(self) -> None:
        """Do nothing: the replicas check their classes."""

    def check_running_version(self) -> None:
        """Do nothing: applications of a config file are not compared."""

    def deploy(self, begun: Start, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy the applications and wait until each runs or has failed."""
        from sdk._serve.config_deploy import deploy, wait_until_started

        deploy(self.config)
        begun.wait()
        return wait_until_started(self.config, failed)

    def deploy_again(self, before: Collection[str], failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy the applications, each with a new version, since Ray Serve does not compare their code."""
        from sdk._serve.config_deploy import deploy, wait_until_started

        deploy(self.config, before=before, has_new_code=True)
        return wait_until_started(self.config, failed)

    def refresh(self) -> str:
        """Read the file again."""
        from sdk._serve.config_file import read_config

        before, self.config = self.config, read_config(self.target)
        if self.config.options == before.options:
            return ""
        return f"{self.target}: options of the ingress have changed; restart the command to apply them"


def is_config(target: str) -> bool:
    """Return whether the name of a target is that of a config file.

    Example:
        >>> is_config("serve.yaml"), is_config("app:app")
        (True, False)
    """
    return target.endswith(_CONFIG_SUFFIXES)


def find_target(target: str, name: str | None, allow_breaking: bool = False) -> RunTarget:
    """Return the applications of a target.

    Args:
        target: ``MODULE[:NAME]``, or the path of a config file.
        name: The application's name on the command line, or None.
        allow_breaking: Whether to update an application even if that breaks its clients.

    Raises:
        SdkError: The target does not exist, can't be read, or is wrong.
    """
    if not is_config(target):
        return ModuleTarget(target, name, allow_breaking)
    if allow_breaking:
        raise OptionsError(f"--allow-breaking needs a module; the applications of {target} are never compared.")
    if name is not None:
        raise OptionsError(f"--name needs a module; {target} names its applications.")
    return ConfigTarget(target)

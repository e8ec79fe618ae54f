"""What ``sdk run`` serves: the application of a module, or those of a config file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sdk.cli.target import load_target
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk._serve.config_file import ServeConfig

_DEFAULT_NAME = "default"
_CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


class Served(Protocol):
    """Applications that are ready to be deployed."""

    target: str
    """As on the command line."""

    given_name: str | None
    """The application's name, when it was given."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the applications."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the ingress that they bring with them, by name."""

    def start_serve(self) -> None:
        """Start Ray Serve as they want it, when it does not run; without wishes, nothing happens."""

    def deploy(self, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy them and wait until they run.

        Args:
            failed: Called with the name of an application that failed to start, and why, when others go on.

        Returns:
            The names of those that failed.

        Raises:
            ClusterError: Nothing was started, and why.
        """

    def deploy_again(self, before: Collection[str], failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy them as new versions of what runs, with the code as it is now; as :meth:`deploy` else.

        Args:
            before: The applications that were deployed before; those that there are no longer are deleted.
            failed: As for :meth:`deploy`.
        """

    def refresh(self) -> str:
        """Take note of a new version that another process has deployed.

        Returns:
            What of it holds only after a new start; empty when nothing does.

        Raises:
            SdkError: It can't be read.
        """


class ModuleTarget:
    """The application that ``MODULE:NAME`` holds.

    Args:
        spec: ``"app:app"``, or ``"app"`` for a module's only application.
        name: The application's name.
        allow_breaking: Whether to update an application although that breaks its clients.
    """

    options: Mapping[str, Any] = {}

    def __init__(self, spec: str, name: str | None, allow_breaking: bool = False) -> None:
        from sdk._serve.application import only_application, require_application

        module, found = load_target(spec)
        self.target, self.given_name = spec, name
        self.names: tuple[str, ...] = (name or _DEFAULT_NAME,)
        self._allow_breaking = allow_breaking
        self.application: Any = only_application(module) if found is None else require_application(found, spec)

    def start_serve(self) -> None:
        """Do nothing: the ingress starts Ray Serve."""

    def deploy(self, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy it and wait until it runs."""
        from sdk._serve.api import run

        run(self.application, name=self.names[0], allow_breaking=self._allow_breaking)
        return ()

    def deploy_again(self, before: Collection[str], failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy it: Ray Serve takes each deployment from a program for a new version."""
        return self.deploy(failed)

    def refresh(self) -> str:
        """Do nothing: the name stays."""
        return ""


class ConfigTarget:
    """The applications of a config file.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        from sdk._serve.config_file import read_config

        self.target = path
        self.given_name: str | None = None
        self.config: ServeConfig = read_config(path)
        # What grpc_servicer_functions names is imported here.
        sys.path[:0] = [folder for folder in self.config.folders if folder not in sys.path]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the applications."""
        return self.config.names

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the ingress in the file."""
        return self.config.options

    def start_serve(self) -> None:
        """Start Ray Serve as the file wants it."""
        from sdk._serve.config_deploy import start_serve

        start_serve(self.config)

    def deploy(self, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy them and wait until each runs or has failed."""
        from sdk._serve.config_deploy import deploy, wait_until_started

        deploy(self.config)
        return wait_until_started(self.config, failed)

    def deploy_again(self, before: Collection[str], failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy them, each with a version of its own: Ray Serve does not look at their code."""
        from sdk._serve.config_deploy import deploy, wait_until_started

        deploy(self.config, before=before, has_new_code=True)
        return wait_until_started(self.config, failed)

    def refresh(self) -> str:
        """Read the file again."""
        from sdk._serve.config_file import read_config

        before, self.config = self.config, read_config(self.target)
        if self.config.options == before.options:
            return ""
        return f"{self.target}: options of the ingress have changed; they hold from the next start of the command"


def is_config(target: str) -> bool:
    """Return whether a target of the command line is a config file, by its name.

    Example:
        >>> is_config("serve.yaml"), is_config("app:app")
        (True, False)
    """
    return target.endswith(_CONFIG_SUFFIXES)


def find_served(target: str, name: str | None, allow_breaking: bool = False) -> Served:
    """Return what a command line means.

    Args:
        target: ``MODULE[:NAME]``, or the path of a config file.
        name: The application's name, when it was given.
        allow_breaking: Whether to update an application although that breaks its clients.

    Raises:
        SdkError: It can't be found or read, or is wrong.
    """
    if not is_config(target):
        return ModuleTarget(target, name, allow_breaking)
    if allow_breaking:
        raise OptionsError(f"--allow-breaking is for a module; Ray Serve builds what {target} names, unchecked.")
    if name is not None:
        raise OptionsError(f"--name is for a module; the applications of {target} have their names there.")
    return ConfigTarget(target)

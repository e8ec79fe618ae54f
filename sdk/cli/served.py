"""What ``sdk run`` serves: the application of a module, or those of a config file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sdk.cli.target import load_target
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk.serve.config import ServeConfig

_DEFAULT_NAME = "default"
_CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


class Served(Protocol):
    """Applications that are ready to be deployed."""

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


class ModuleTarget:
    """The application that ``MODULE:NAME`` holds.

    Args:
        spec: ``"app:app"``, or ``"app"`` for a module's only application.
        name: The application's name.
    """

    options: Mapping[str, Any] = {}

    def __init__(self, spec: str, name: str | None) -> None:
        from sdk.serve.application import only_application, require_application

        module, found = load_target(spec)
        self.names: tuple[str, ...] = (name or _DEFAULT_NAME,)
        self.application: Any = only_application(module) if found is None else require_application(found, spec)

    def start_serve(self) -> None:
        """Do nothing: the ingress starts Ray Serve."""

    def deploy(self, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy it and wait until it runs."""
        from sdk.serve.run import run

        run(self.application, name=self.names[0])
        return ()


class ConfigTarget:
    """The applications of a config file.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        from sdk.serve.config import read_config

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
        from sdk.serve.declared import start_serve

        start_serve(self.config)

    def deploy(self, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Deploy them and wait until each runs or has failed."""
        from sdk.serve.declared import deploy, wait_until_started

        deploy(self.config)
        return wait_until_started(self.config, failed)

    def deploy_again(self, failed: Callable[[str, str], None]) -> tuple[str, ...]:
        """Read the file again and deploy what it says now, with the code as it is now; no call is lost.

        Raises:
            OptionsError: The file is wrong now; what runs goes on.
        """
        from sdk.serve.config import read_config
        from sdk.serve.declared import deploy, wait_until_started

        before, self.config = self.config, read_config(self.config.path)
        deploy(self.config, before=before.names, has_new_code=True)
        return wait_until_started(self.config, failed)


def find_served(target: str, name: str | None) -> Served:
    """Return what a command line means.

    Args:
        target: ``MODULE[:NAME]``, or the path of a config file.
        name: The application's name, when it was given.

    Raises:
        SdkError: It can't be found or read, or is wrong.
    """
    if not target.endswith(_CONFIG_SUFFIXES):
        return ModuleTarget(target, name)
    if name is not None:
        raise OptionsError(f"--name is for a module; the applications of {target} have their names there.")
    return ConfigTarget(target)

"""The parts of ``sdk/testing/_runtime.py`` that the test server uses.

The runtime is imported by name when a server is made, because it imports Ray: type checkers that read ``sdk.testing``
would follow an import into some 900 modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sdk._extras import import_with_extra

if TYPE_CHECKING:
    from sdk._contract.definition import Definition
    from sdk.options import GrpcOptions
    from sdk.testing._faults import Faults


class ServedReplica(Protocol):
    """One deployment of an application."""

    @property
    def application(self) -> str:
        """Name of its application."""

    @property
    def name(self) -> str:
        """Name of the deployment."""

    @property
    def cls(self) -> Any:
        """The class that was bound."""

    @property
    def instance(self) -> Any:
        """The instance that answers the calls."""

    @property
    def definition(self) -> Definition | None:
        """Definition of the class; None if the class is not decorated."""


class ServedApplication(Protocol):
    """One application."""

    @property
    def replicas(self) -> Mapping[Any, ServedReplica]:
        """Its deployments."""

    @property
    def handle(self) -> Any:
        """A handle to its ingress deployment."""


class ServedIngress(Protocol):
    """Envoy and its control plane."""

    @property
    def target(self) -> str:
        """The address for clients."""

    @property
    def envoy_pid(self) -> int:
        """Process id of Envoy."""


class ServerRuntime(Protocol):
    """Applications, wire servers and ingress of one test server."""

    @property
    def options(self) -> GrpcOptions:
        """Options of the ingress."""

    @property
    def applications(self) -> Mapping[str, ServedApplication]:
        """Applications by name."""

    @property
    def faults(self) -> Faults:
        """Faults that are injected."""

    @property
    def ingress(self) -> ServedIngress:
        """The ingress."""

    def start(self) -> None:
        """Start all parts."""

    def stop(self) -> None:
        """Stop all parts."""


def make_runtime(targets: Mapping[str, Any], options: GrpcOptions, *, tls: bool) -> ServerRuntime:
    """Return the runtime of applications, which is not yet started.

    Raises:
        MissingExtraError: Ray or Envoy is not installed.
    """
    module = import_with_extra("sdk.testing._runtime", "sdk.testing")
    runtime: ServerRuntime = module.Runtime(targets, options, tls=tls)
    return runtime

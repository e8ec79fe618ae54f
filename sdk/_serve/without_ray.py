"""Stand-in for ``sdk._serve.backend`` where Ray is not installed: it defines, binds and checks classes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdk._serve.binding import bind_with, check_option_names
from sdk._serve.deployed_classes import SERVED_SERVICES
from sdk.errors import MissingExtraError

__all__ = [
    "HAS_RAY",
    "answer_over_ray",
    "application_handle",
    "bind_class",
    "check_options",
    "current_metadata",
    "distant_proxy",
    "has_ingress",
    "node_id",
    "ray_connection",
]

HAS_RAY = False

if TYPE_CHECKING:
    from sdk import _serve
    from sdk._backend import Backend

    _checked: Backend = _serve.without_ray


class UnservedApplication:
    """The result of ``bind``, in place of Ray Serve's ``Application``."""

    def __init__(self, deployment: UnservedDeployment) -> None:
        self.deployment = deployment


@dataclass
class UnservedDeployment:
    """Those attributes of Ray Serve's ``Deployment`` that checks read."""

    func_or_class: type
    name: str
    init_args: tuple[Any, ...] = ()
    init_kwargs: Mapping[str, Any] | None = None

    def bind(self, *args: Any, **kwargs: Any) -> UnservedApplication:
        """Bind constructor arguments."""
        return UnservedApplication(UnservedDeployment(self.func_or_class, self.name, args, kwargs))


def check_options(class_name: str, options: Mapping[str, Any]) -> None:
    """Check the names of deployment options. Only Ray Serve knows the valid values.

    Raises:
        OptionsError: A name is unknown.
    """
    check_option_names(class_name, options)


def bind_class(cls: Any, replaced: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return an application that can be checked but not served; the errors are those of ``bind_with``."""
    return bind_with(_deployment, cls, replaced, args, kwargs)


def _deployment(cls: Any, options: dict[str, Any]) -> UnservedDeployment:
    check_option_names(cls.__name__, options)
    served = cls
    if options.get("expose", True):
        names = tuple(service.full_name for service in cls.__grpc_definition__.services)
        served = type(cls.__name__, (cls,), {SERVED_SERVICES: names})
    return UnservedDeployment(served, options.get("name", cls.__name__))


def current_metadata() -> list[tuple[str, str | bytes]]:
    """Return nothing: Ray Serve's request context does not exist."""
    return []


def node_id() -> str:
    """Return ``""``: there is no node."""
    return ""


def has_ingress() -> bool:
    """Return False: there is no cluster."""
    return False


def distant_proxy(node_id: str) -> None:
    """Return None: there is no other node."""
    return None


def application_handle(name: str) -> Any:
    """Refuse.

    Raises:
        MissingExtraError: Always.
    """
    raise MissingExtraError("a handle", "ray", "serve")


def ray_connection(handle: Any, model_id: str) -> Any:
    """Refuse; see :func:`application_handle`."""
    return application_handle("")


async def answer_over_ray(implementation: Any, request: bytes) -> AsyncGenerator[bytes, None]:
    """Refuse; see :func:`application_handle`."""
    yield application_handle("")

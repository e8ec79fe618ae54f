"""Lazy access to ``sdk._serve`` for modules that must not import Ray Serve, and must work without it.

The import of Ray Serve takes about a second, and programs that only define classes or call services must not pay for
it. Modules in lower layers use ``sdk._serve`` only through :func:`backend`, whose first call imports it by name.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol, cast

from sdk._extras import import_with_extra
from sdk.errors import MissingExtraError


class Backend(Protocol):
    """Functions of ``sdk._serve`` for modules in lower layers.

    ``sdk/_serve/backend.py`` implements them, and ``sdk/_serve/without_ray.py`` where Ray is not installed.
    """

    @property
    def HAS_RAY(self) -> bool:
        """True for Ray Serve's side, False for its stand-in."""

    def check_options(self, class_name: str, options: Mapping[str, Any]) -> None:
        """Check deployment options as Ray Serve checks them."""

    def bind_class(
        self, cls: Any, replaced: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Return the application of a decorated class with bound constructor arguments."""

    def current_metadata(self) -> list[tuple[str, str | bytes]]:
        """Return the client's metadata in Ray Serve's request context, with the request id; empty without one."""

    def node_id(self) -> str:
        """Return Ray's id of this node; ``""`` where Ray does not run."""

    def has_ingress(self) -> bool:
        """Return True if the cluster has an ingress. Blocks on a call to Ray."""

    def distant_proxy(self, node_id: str) -> Any:
        """Return the proxy of another node; None if this node has one, or no node has. Blocks on calls to Ray."""

    def application_handle(self, name: str) -> Any:
        """Return Ray Serve's handle to the ingress deployment of an application."""

    def ray_connection(self, handle: Any, model_id: str) -> Any:
        """Return the connection for one call that a Ray handle carries."""

    def answer_over_ray(self, implementation: Any, request: bytes) -> AsyncGenerator[bytes, None]:
        """Answer such a call; yield the bytes of the response."""


@functools.cache
def backend() -> Backend:
    """Return the module ``sdk._serve.backend``, or its stand-in where Ray is not installed.

    The first call imports Ray Serve.

    Raises:
        ApplicationError: The process has loaded a proto that defines a name of one of Ray's.
    """
    try:
        return cast("Backend", import_with_extra("sdk._serve.backend", "Ray Serve"))
    except MissingExtraError:
        return cast("Backend", importlib.import_module("sdk._serve.without_ray"))

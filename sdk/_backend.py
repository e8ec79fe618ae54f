"""Lazy access to ``sdk._serve`` for modules that must not import Ray Serve, and must work without it.

The import of Ray Serve takes about a second, and programs that only define classes or call services must not pay for
it. Modules in lower layers use ``sdk._serve`` only through :func:`backend`, whose first call imports it by name.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

from sdk._extras import missing_package


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

    def current_request_id(self) -> str:
        """Return the request id of Ray Serve's request context, or ``""``."""

    def propagate_model_id(self, model_id: str) -> None:
        """Set the model id in Ray Serve's request context, if it has none."""

    def translate(self, error: BaseException) -> BaseException:
        """Return the exception that decides the status of a call."""


@functools.cache
def backend() -> Backend:
    """Return the module ``sdk._serve.backend``, or its stand-in where Ray is not installed.

    The first call imports Ray Serve.
    """
    try:
        return cast("Backend", importlib.import_module("sdk._serve.backend"))
    except ModuleNotFoundError as error:
        if missing_package(error) is None:
            raise
        return cast("Backend", importlib.import_module("sdk._serve.without_ray"))

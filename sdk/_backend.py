"""The door from light modules to the serving side.

Importing Ray Serve takes about a second, so a program that only defines classes or calls services must not pay for it.
Modules below ``sdk._serve`` reach it through :func:`backend` alone, which imports it by name at its first use.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast


class Backend(Protocol):
    """Functions of the serving side that light modules call (``sdk/_serve/backend.py``)."""

    def check_options(self, class_name: str, options: Mapping[str, Any]) -> None:
        """Check deployment options as Ray Serve checks them."""

    def bind_class(
        self, cls: Any, replaced: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Return the application of a decorated class with bound constructor arguments."""

    def current_request_id(self) -> str:
        """Return the request id of Ray Serve's request context, or ``""``."""

    def carry_model_id(self, model_id: str) -> None:
        """Set the model id in Ray Serve's request context, if it has none."""

    def translate(self, error: BaseException) -> BaseException:
        """Return the exception that decides the status of a call."""


@functools.cache
def backend() -> Backend:
    """Return the serving side; the first call imports Ray Serve."""
    return cast("Backend", importlib.import_module("sdk._serve.backend"))

"""Import of modules that need an extra of ``ray-grpc-sdk``: https://packaging.python.org/specifications/core-metadata/.

Clients, checks and the commands for any gRPC server need no extra. ``codegen`` brings the compiler and the templates,
``console`` the HTTP server of ``sdk console``, ``serve`` brings Ray, Envoy and these two, ``validate`` the package that
evaluates rules, ``inference`` NumPy and its type for BF16, ``otel`` OpenTelemetry's SDK and its exporters.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

from sdk._proto_files.duplicate_names import duplicate_name
from sdk.errors import ApplicationError, MissingExtraError

#: An extra of ``pyproject.toml``; empty for what every installation has.
Extra = Literal["", "codegen", "console", "inference", "otel", "serve", "validate"]


def import_with_extra(module: str, user: str, extra: Extra = "serve") -> Any:
    """Import a module of the SDK.

    Args:
        module: Its name.
        user: What needs it, for the message: ``"sdk.run"``.
        extra: The extra that brings what it imports.

    Raises:
        MissingExtraError: A package that the module imports is not installed.
        ApplicationError: The process has loaded a proto that defines a name of one that the module needs.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = missing_package(error)
        if package is None:
            raise
        raise MissingExtraError(user, package, extra) from error
    except TypeError as error:
        if clash := duplicate_name(error):
            raise ApplicationError(clash) from error
        raise


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Return the package that is not installed; None for a module of the SDK itself.

    Example:
        >>> missing_package(ModuleNotFoundError("No module named 'ray.serve'", name="ray.serve"))
        'ray'
    """
    package = (error.name or "").split(".")[0]
    return package if package and package not in ("sdk", "codegen") else None

"""Resolve ``grpc_servicer_functions`` to full names of services, in the process that starts the ingress.

The controller and the proxies get full names only, so they never import user code.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk.options import GrpcOptions


def resolve_services(options: GrpcOptions) -> GrpcOptions:
    """Return the options with import paths replaced by full names of services.

    A name whose last part starts with a lower-case letter is the import path of a function,
    ``greet_pb2_grpc.add_GreeterServicer_to_server`` or ``greet_pb2_grpc:add_GreeterServicer_to_server``. Any other name
    is the full name of a service.

    Args:
        options: Options of the ingress.

    Raises:
        OptionsError: A function can't be imported or registers no service. Lists every one.

    Example:
        >>> from sdk import GrpcOptions
        >>> path = "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server"
        >>> resolve_services(GrpcOptions(grpc_servicer_functions=(path, "greet.Greeter"))).grpc_servicer_functions
        ('greet.Greeter', 'grpc.health.v1.Health')
    """
    if options.grpc_servicer_functions is None:
        return options
    services: set[str] = set()
    problems = []
    for name in options.grpc_servicer_functions:
        module, _, function = name.replace(":", ".").rpartition(".")
        if not re.match("[a-z_]", function):
            services.add(name)
            continue
        try:
            services |= _registered_by(getattr(importlib.import_module(module), function))
        except Exception as error:  # an import may raise anything
            problems.append(f"{name!r} can't be used: {' '.join(str(error).split()) or type(error).__name__}")
    if problems:
        raise OptionsError("GrpcOptions: grpc_servicer_functions: " + "; ".join(problems))
    return replace(options, grpc_servicer_functions=tuple(sorted(services)))


def _registered_by(function: Any) -> set[str]:
    recorder = _Recorder()
    function(_AnyServicer(), recorder)
    if not recorder.services:
        raise ValueError("it registers no service")
    return recorder.services


class _AnyServicer:
    """Servicer that has every method."""

    def __getattr__(self, name: str) -> Any:
        return lambda request, context: None


class _Recorder:
    """Fake ``grpc.Server`` that records the services that a generated function registers."""

    def __init__(self) -> None:
        self.services: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        self.services.update(handler.service_name() for handler in handlers)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        self.services.add(service)

"""From the names in ``grpc_servicer_functions`` to services: looked up where the ingress is started.

The controller and the proxies get full names of services. They never import user code.
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
    """Return the options with full names of services in place of import paths.

    A name whose last part starts with a small letter is that of a function,
    ``greet_pb2_grpc.add_GreeterServicer_to_server`` or ``greet_pb2_grpc:add_GreeterServicer_to_server``; any other is a
    service's already.

    Args:
        options: Options of the ingress.

    Raises:
        OptionsError: A function can't be imported or registers no service; the text lists every one.

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
        except Exception as error:  # whatever the module raises when it is imported
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
    """Has every method."""

    def __getattr__(self, name: str) -> Any:
        return lambda request, context: None


class _Recorder:
    """Stands for a ``grpc.Server`` while a generated function registers its service."""

    def __init__(self) -> None:
        self.services: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        self.services.update(handler.service_name() for handler in handlers)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        self.services.add(service)

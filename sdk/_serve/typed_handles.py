"""Replace bound deployments among constructor arguments by the typed handles that the parameters are annotated with."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator
from typing import Any

from sdk._contract.annotations import AnnotationScope, Unresolved
from sdk._contract.implementations import generated_bases
from sdk._serve.deployed_classes import is_application
from sdk.errors import OptionsError
from sdk.handles import ServiceHandle

# Attribute of an application: the class that it was bound from.
_CLASS = "_grpc_class"
_CONTAINERS = (list, tuple, dict)


def remember_class(application: Any, cls: type) -> Any:
    """Record the class that an application was bound from, and return the application."""
    setattr(application, _CLASS, cls)
    return application


def with_typed_handles(cls: type, given: inspect.BoundArguments) -> None:
    """Replace bound deployments among the arguments of a constructor by typed handles.

    A parameter that is annotated with a generated handle (or a union, list or dict of them) gets one. Ray Serve
    searches constructor arguments for bound deployments and finds them inside these handles, too.

    Args:
        cls: The class.
        given: The arguments of its constructor; changed in place.

    Raises:
        OptionsError: A parameter is a handle of a service that the given deployment does not serve.
    """
    constructor: Any = cls.__init__  # type: ignore[misc]  # the constructor of this class, not of a subclass
    scope = AnnotationScope(inspect.unwrap(constructor), cls)
    for name, parameter in given.signature.parameters.items():
        if name in given.arguments and parameter.annotation is not inspect.Parameter.empty:
            wanted = list(_types_in(scope, parameter.annotation))
            given.arguments[name] = _converted(given.arguments[name], wanted, f"{cls.__name__}.bind: {name}")


def _types_in(scope: AnnotationScope, annotation: Any) -> Iterator[Any]:
    annotation = scope.resolve(annotation)
    arguments = typing.get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _types_in(scope, argument)


def _converted(value: Any, wanted: list[Any], where: str) -> Any:
    if is_application(value):
        return _handle(value, wanted, where)
    if type(value) is dict:
        return {key: _converted(each, wanted, where) for key, each in value.items()}
    if type(value) in _CONTAINERS:
        return type(value)(_converted(each, wanted, where) for each in value)
    return value


def _handle(application: Any, wanted: list[Any], where: str) -> Any:
    cls = getattr(application, _CLASS, None)
    own = _handles_of(cls) if cls is not None else []
    handles = [each for each in wanted if isinstance(each, type) and issubclass(each, ServiceHandle)]
    for handle in handles:
        if cls is None or any(each.__grpc_service__ == handle.__grpc_service__ for each in own):
            return handle(application)
    # A name that only type checkers can resolve is one of the deployment's own handles, if it is a handle at all.
    for name in (each.name.rpartition(".")[2] for each in wanted if isinstance(each, Unresolved)):
        for handle in own:
            if handle.__name__ == name:
                return handle(application)
    if cls is not None and handles and all(each in handles or each is type(None) for each in wanted):
        names = " or ".join(handle.__name__ for handle in handles)
        services = ", ".join(handle.__grpc_service__.full_name for handle in own)
        raise OptionsError(f"{where} is annotated {names}, but {cls.__name__} serves {services}")
    return application


def _handles_of(cls: type) -> list[type[ServiceHandle]]:
    """Return the generated handles of the services of a class, from the modules of its generated bases."""
    return [
        value
        for base in generated_bases(cls)
        for value in vars(sys.modules[base.__module__]).values()
        if isinstance(value, type) and issubclass(value, ServiceHandle)
        # ServiceHandle itself has no service.
        if getattr(value, "__grpc_service__", None) is vars(base)["__grpc_shim__"].service
    ]

"""Deployments and decorated classes of a bound application, found without an import of Ray Serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdk._contract.definition import definition_of
from sdk.handles import ServiceHandle

#: Attribute of a replica's class: full names of the services that clients can call there.
SERVED_SERVICES = "__grpc_served__"
# The second one is that of `sdk/_serve/without_ray.py`.
_APPLICATIONS = {("ray", "Application"), ("sdk", "UnservedApplication")}


def is_application(value: object) -> bool:
    """Return True for a result of ``bind``, of the SDK's or of a plain Ray Serve deployment."""
    # By name: the import of Ray Serve takes a second, and only a program that uses it can have an application.
    return (type(value).__module__.split(".")[0], type(value).__name__) in _APPLICATIONS


def bound_deployments(application: Any) -> list[Any]:
    """Return the deployments of an application: those bound as constructor arguments first, its own last.

    Args:
        application: The result of ``bind``.

    Returns:
        Ray Serve's ``Deployment`` objects; one that several constructors share appears once.
    """
    return list(_walk(application, set()))


def deployed_classes(application: Any, *, is_exposed: bool = False) -> tuple[type, ...]:
    """Return the decorated classes of an application, those of its constructor arguments first.

    Args:
        application: The result of ``bind``.
        is_exposed: Leave out classes with ``expose=False``, whose services clients can't call.
    """
    deployed = [each.func_or_class for each in bound_deployments(application) if isinstance(each.func_or_class, type)]
    chosen = [cls for cls in deployed if not is_exposed or hasattr(cls, SERVED_SERVICES)]
    # A replica runs a subclass of the class that was decorated.
    return tuple(dict.fromkeys(base for cls in chosen for base in cls.__mro__ if definition_of(base) is not None))


def _walk(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the deployments in a constructor argument, which may be a container of applications."""
    if is_application(value):
        if id(value) in seen:
            return
        seen.add(id(value))
        for deployment in vars(value).values():
            if hasattr(deployment, "func_or_class"):
                yield from _walk((deployment.init_args, deployment.init_kwargs), seen)
                yield deployment
    elif isinstance(value, ServiceHandle):
        yield from _walk(value._handle, seen)
    elif isinstance(value, dict):
        yield from _walk(tuple(value.values()), seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk(item, seen)

"""Which decorated classes an application deploys, found without importing Ray Serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdk.deployment import definition_of


def is_application(value: object) -> bool:
    """Return whether a value is what ``bind`` returns, of a class of the SDK's or of Ray Serve alone."""
    # By name: Ray Serve takes a second to import, and only a program that uses it can hold one.
    return (type(value).__module__.split(".")[0], type(value).__name__) == ("ray", "Application")


def deployed_classes(application: Any) -> tuple[type, ...]:
    """Return the decorated classes of an application, those of its constructor arguments first.

    Args:
        application: What ``bind`` returned.
    """
    return tuple(dict.fromkeys(_classes(application)))


def _classes(application: Any) -> Iterator[type]:
    for deployment in vars(application).values():
        if hasattr(deployment, "func_or_class"):
            yield from _classes_in((deployment.init_args, deployment.init_kwargs))
            # A replica runs a subclass of the class that was decorated.
            deployed = deployment.func_or_class
            bases = deployed.__mro__ if isinstance(deployed, type) else ()
            yield from (base for base in bases if definition_of(base) is not None)


def _classes_in(arguments: Any) -> Iterator[type]:
    if is_application(arguments):
        yield from _classes(arguments)
    elif isinstance(arguments, dict):
        yield from _classes_in(tuple(arguments.values()))
    elif isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from _classes_in(argument)

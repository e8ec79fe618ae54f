"""Which decorated classes an application deploys, found without importing Ray Serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdk._contract.definition import definition_of
from sdk.handles import ServiceHandle

#: What the class of a replica holds: full names of the services that clients can call there.
SERVED = "__grpc_served__"


def is_application(value: object) -> bool:
    """Return whether a value is what ``bind`` returns, of a class of the SDK's or of Ray Serve alone."""
    # By name: Ray Serve takes a second to import, and only a program that uses it can hold one.
    return (type(value).__module__.split(".")[0], type(value).__name__) == ("ray", "Application")


def deployed_classes(application: Any, *, is_exposed: bool = False) -> tuple[type, ...]:
    """Return the decorated classes of an application, those of its constructor arguments first.

    Args:
        application: What ``bind`` returned.
        is_exposed: Only those whose services clients can call, so none with ``expose=False``.
    """
    deployed = dict.fromkeys(_deployed(application))
    chosen = [cls for cls in deployed if not is_exposed or hasattr(cls, SERVED)]
    # A replica runs a subclass of the class that was decorated.
    return tuple(dict.fromkeys(base for cls in chosen for base in cls.__mro__ if definition_of(base) is not None))


def _deployed(application: Any) -> Iterator[type]:
    for deployment in vars(application).values():
        if hasattr(deployment, "func_or_class"):
            yield from _deployed_in((deployment.init_args, deployment.init_kwargs))
            if isinstance(deployment.func_or_class, type):
                yield deployment.func_or_class


def _deployed_in(arguments: Any) -> Iterator[type]:
    if is_application(arguments):
        yield from _deployed(arguments)
    elif isinstance(arguments, ServiceHandle):
        yield from _deployed_in(arguments._handle)
    elif isinstance(arguments, dict):
        yield from _deployed_in(tuple(arguments.values()))
    elif isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from _deployed_in(argument)

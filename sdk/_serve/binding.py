"""Binds decorated classes to constructor arguments. Needs no Ray: the kind of deployment is given."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sdk._contract import locations
from sdk._contract.definition import definition_of
from sdk._serve.deployed_classes import SERVED_SERVICES, bound_deployments
from sdk._serve.typed_handles import remember_class, with_typed_handles
from sdk.deployment import DeploymentOptions
from sdk.errors import ApplicationError, DefinitionError, OptionsError, Problem

if TYPE_CHECKING:
    from sdk._contract.definition import Definition


def check_option_names(class_name: str, options: Mapping[str, Any]) -> None:
    """Check the names of deployment options, and the value of ``expose``, which is the SDK's own.

    Raises:
        OptionsError: A name is unknown, or ``expose`` is not a bool.
    """
    known = DeploymentOptions.__annotations__
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise OptionsError(f"{class_name}: unknown deployment option {name!r}; {hint}")
    exposed = options.get("expose", True)
    if not isinstance(exposed, bool):
        raise OptionsError(f"{class_name}: expose must be True or False, not {exposed!r}")


def bind_with(
    make_deployment: Callable[[Any, dict[str, Any]], Any],
    cls: Any,
    replaced: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Return the application of a decorated class with bound constructor arguments.

    Args:
        make_deployment: Makes a deployment of the class with its options; it may change these.
        cls: The class.
        replaced: Deployment options that replace those of its decorator.
        args: Positional arguments of its constructor.
        kwargs: Keyword arguments of its constructor.

    Returns:
        What ``bind`` of the deployment returns.

    Raises:
        DefinitionError: The class is not decorated.
        OptionsError: The arguments don't fit its constructor, one is a handle of another service than its parameter, or
            an option is rejected.
        ApplicationError: Another deployment among its arguments serves one of its services.
    """
    definition = _require_definition(cls)
    try:
        given = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
    except TypeError as error:
        raise OptionsError(f"{cls.__name__}.bind: {error}; its constructor is {_describe_constructor(cls)}") from None
    deployment = make_deployment(cls, {**definition.options, **replaced})
    with_typed_handles(cls, given)
    application = deployment.bind(*given.args[1:], **given.kwargs)
    _check_services(cls.__name__, application)
    return remember_class(application, cls)


def _check_services(name: str, application: Any) -> None:
    owners: dict[str, str] = {}
    for deployment in bound_deployments(application):
        for service in getattr(deployment.func_or_class, SERVED_SERVICES, ()):
            if service in owners:
                raise ApplicationError(
                    f"{name}.bind: service {service!r} is served by two deployments of this application, "
                    f"{owners[service]} and {deployment.name}, and calls can go to only one of them. "
                    "Set `expose=False` on the one that is called through its handle."
                )
            owners[service] = deployment.name


def _require_definition(cls: Any) -> Definition:
    """Return the definition of a decorated class.

    Raises:
        DefinitionError: The class itself is not decorated; a decorated base class does not count.
    """
    definition = definition_of(cls)
    if definition is None:
        name = getattr(cls, "__name__", repr(cls))
        message, remedy = "the class is not bound to its service", "put @grpc_deployment above it"
        problem = Problem("not-decorated", name, message, remedy, code_location=locations.of_class(cls))
        raise DefinitionError(name, [problem])
    return definition


def _describe_constructor(cls: Any) -> str:
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return f"{cls.__name__}({', '.join(map(str, parameters))})"

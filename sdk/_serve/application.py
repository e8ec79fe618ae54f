"""Bind decorated classes: turn one with its constructor arguments into an application that Ray Serve can run."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ray import serve

from sdk._contract.definition import definition_of
from sdk._serve.autoscaling import with_grpc_policy
from sdk._serve.deployed_classes import SERVED_SERVICES, bound_deployments
from sdk._serve.failures import one_line
from sdk._serve.replica import replica_class
from sdk._serve.typed_handles import remember_class, with_typed_handles
from sdk.deployment import DeploymentOptions
from sdk.errors import ApplicationError, DefinitionError, OptionsError, Problem

if TYPE_CHECKING:
    from sdk._contract.definition import Definition

#: Environment variable that is set while an application is built again because its code has changed.
CODE_VERSION = "SDK_CODE_VERSION"


def check_options(class_name: str, options: Mapping[str, Any]) -> None:
    """Check deployment options as Ray Serve checks them.

    Args:
        class_name: Name of the class, for the message.
        options: Options by name.

    Raises:
        OptionsError: An option has an unknown name or a value that Ray Serve rejects.
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
    try:
        _deploy(class_name, type(class_name, (), {}), options)
    except (TypeError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        raise OptionsError(f"{class_name}: Ray Serve rejects its deployment options: {one_line(error)}") from None


def bind_class(cls: Any, replaced: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the application of a decorated class with bound constructor arguments.

    Args:
        cls: The class.
        replaced: Deployment options that replace those of its decorator.
        args: Positional arguments of its constructor.
        kwargs: Keyword arguments of its constructor.

    Returns:
        A ``ray.serve.Application``.

    Raises:
        DefinitionError: The class is not decorated.
        OptionsError: The arguments don't fit its constructor, one is a handle of another service than its parameter, or
            Ray Serve rejects an option.
        ApplicationError: Another deployment among its arguments serves one of its services.
    """
    definition = require_definition(cls)
    try:
        given = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
    except TypeError as error:
        raise OptionsError(f"{cls.__name__}.bind: {error}; its constructor is {_describe_constructor(cls)}") from None
    options = {**definition.options, **replaced}
    check_options(cls.__name__, options)
    with_typed_handles(cls, given)
    if CODE_VERSION in os.environ and "max_surge_percent" in inspect.signature(serve.deployment).parameters:
        # The code may be half written: the running replicas stay until the new ones have started.
        options.setdefault("max_surge_percent", 100)
    replica = replica_class(cls, is_exposed=options.get("expose", True))
    deployment = _deploy(cls.__name__, replica, with_grpc_policy(options))
    application = deployment.bind(*given.args[1:], **given.kwargs)
    _check_services(cls.__name__, application)
    return remember_class(application, cls)


def _check_services(name: str, application: serve.Application) -> None:
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


def deployment_of_instance(definition: Definition) -> Any:
    """Return a Ray Serve deployment with the name and options of a class, for an instance that exists already.

    Ray Serve pickles classes and constructor arguments. An instance is not pickled, so the deployment gets an empty
    class instead.
    """
    name = definition.cls_name
    return _deploy(name, type(name, (), {}), with_grpc_policy(definition.options))


def require_definition(cls: Any) -> Definition:
    """Return the definition of a decorated class.

    Raises:
        DefinitionError: The class itself is not decorated; a decorated base class does not count.
    """
    definition = definition_of(cls)
    if definition is None:
        name = getattr(cls, "__name__", repr(cls))
        raise DefinitionError(
            name,
            [Problem("not-decorated", name, "the class is not bound to its service", "put @grpc_deployment above it")],
        )
    return definition


def require_application(target: Any, name: str) -> serve.Application:
    """Return ``target`` if it is an application.

    Args:
        target: The value to check.
        name: The user's name for it, for the message.

    Raises:
        ApplicationError: It is something else; the message says what to write instead.
    """
    if isinstance(target, serve.Application):
        return target
    if definition_of(target) is not None:
        raise ApplicationError(
            f"{name} is a deployment class, not an application: bind it, `{target.__name__}.bind()`."
        )
    if isinstance(target, serve.Deployment):
        raise ApplicationError(f"{name} is a deployment, not an application: bind it, `{target.name}.bind()`.")
    raise ApplicationError(f"{name} is {type(target).__name__}, not an application: pass the result of `.bind()`.")


def only_application(module: ModuleType) -> serve.Application:
    """Return the one application of a module.

    Raises:
        ApplicationError: The module has no application, or several.
    """
    found = {name: value for name, value in vars(module).items() if isinstance(value, serve.Application)}
    if len(found) == 1:
        return next(iter(found.values()))
    several = f"has several applications ({', '.join(found)})"
    what = several if found else "has no application (the result of `.bind()`)"
    raise ApplicationError(f"Module {module.__name__} {what}: name one, {module.__name__}:NAME.")


def _deploy(name: str, cls: type[Any], options: Mapping[str, Any]) -> Any:
    return serve.deployment(**{"name": name, **{key: options[key] for key in options if key != "expose"}})(cls)


def _describe_constructor(cls: Any) -> str:
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return f"{cls.__name__}({', '.join(map(str, parameters))})"

"""Ray Serve's deployments of decorated classes, and the applications that the SDK accepts."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ray import serve

from sdk._contract.definition import definition_of
from sdk._error_text import one_line
from sdk._serve.autoscaling import with_grpc_policy
from sdk._serve.binding import bind_with, check_option_names
from sdk._serve.replica import replica_class
from sdk.errors import ApplicationError, OptionsError

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
    check_option_names(class_name, options)
    try:
        _deploy(class_name, type(class_name, (), {}), options)
    except (TypeError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        raise OptionsError(f"{class_name}: Ray Serve rejects its deployment options: {one_line(error)}") from None


def bind_class(cls: Any, replaced: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the ``ray.serve.Application`` of a decorated class, as :func:`sdk._serve.binding.bind_with` does.

    Raises:
        OptionsError: Ray Serve rejects an option; and the errors of ``bind_with``.
    """
    return bind_with(_deployment, cls, replaced, args, kwargs)


def _deployment(cls: Any, options: dict[str, Any]) -> Any:
    check_option_names(cls.__name__, options)
    if CODE_VERSION in os.environ and "max_surge_percent" in inspect.signature(serve.deployment).parameters:
        # The code may be half written: the running replicas stay until the new ones have started.
        options.setdefault("max_surge_percent", 100)
    try:
        replica = replica_class(cls, is_exposed=options.get("expose", True))
    except TypeError as error:  # an enum, or what the metaclass requires
        message = f"{cls.__name__}: a replica is an object of a subclass of it, and it can't have subclasses: {error}"
        raise ApplicationError(message) from error
    try:
        return _deploy(cls.__name__, replica, with_grpc_policy(options))
    except (TypeError, ValueError):
        check_options(cls.__name__, options)  # says what Ray Serve rejects
        raise


def deployment_of_instance(definition: Definition) -> Any:
    """Return a Ray Serve deployment with the name and options of a class, for an instance that exists already.

    Ray Serve pickles classes and constructor arguments. An instance is not pickled, so the deployment gets an empty
    class instead.
    """
    name = definition.cls_name
    return _deploy(name, type(name, (), {}), with_grpc_policy(definition.options))


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
    given = {key: options[key] for key in options if key != "expose"}
    return _defaults().options(cls, **{"name": name, **given})


@cache
def _defaults() -> Any:
    """Return a deployment without options. It takes Ray Serve several ms: it pickles its request router by value."""
    return serve.deployment(type("Defaults", (), {}))

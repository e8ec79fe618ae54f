"""The option ``allow`` of a deployment: who may call its RPCs."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from sdk.access import CallRule, Identity, RequestRule, Who, who_problems
from sdk.errors import Problem

if TYPE_CHECKING:
    from sdk.service import Method, Service

#: For one RPC: the clients that may call it, and functions that decide by the request.
AllowedCallers: TypeAlias = "Who | RequestRule | Sequence[Who | RequestRule]"
#: For all RPCs, or for each by its name in the proto; "*" names all others.
Allow: TypeAlias = "AllowedCallers | Mapping[str, AllowedCallers]"

_OTHERS = "*"
_WANTED = "'anyone', 'authenticated', a Token, an ApiKey, a Certificate, or a function of request and context"


def rules_of(services: Sequence[Service], allow: Allow | None) -> dict[str, CallRule]:
    """Return the rules by the path of the RPC, without RPCs that everyone may call.

    Args:
        services: The services of the class.
        allow: The option of its decorator.
    """
    if allow is None:
        return {}
    found = {}
    for service in services:
        for method in service.methods:
            callers = _callers(allow, method)
            if "anyone" not in callers:
                functions = tuple(each for each in callers if not isinstance(each, Identity | str))
                found[method.path] = CallRule(tuple(each for each in callers if each not in functions), functions)
    return found


def check_allow(class_name: str, services: Sequence[Service], allow: Any) -> list[Problem]:
    """Return the problems of the option ``allow``.

    Args:
        class_name: Name of the decorated class, for the messages.
        services: Its services.
        allow: The argument of the decorator.
    """
    methods = [method for service in services for method in service.methods]
    problems = list(_name_problems(class_name, services, allow)) if isinstance(allow, Mapping) else []
    values = allow.items() if isinstance(allow, Mapping) else [(_OTHERS, allow)]
    named = {name for name, _ in values}
    for name, value in values:
        where = f"allow of `{name}`" if isinstance(allow, Mapping) else "allow"
        found = list(_value_problems(where, value))
        if not found:
            governed = [each for each in methods if each.name == name or (name == _OTHERS and each.name not in named)]
            functions = [each for each in _as_tuple(value) if not isinstance(each, Identity | str)]
            found = [what for function in functions for what in _function_problems(where, function, governed)]
        problems += [Problem("allow", class_name, message, remedy) for message, remedy in found]
    if isinstance(allow, Mapping) and not problems and _OTHERS not in allow:
        missing = dict.fromkeys(method.name for method in methods if method.name not in allow)
        remedy = 'name it, or "*" for all others'
        problems += [Problem("allow", class_name, f"allow does not say who may call {n}", remedy) for n in missing]
    return problems


def _callers(allow: Allow, method: Method) -> tuple[Any, ...]:
    return _as_tuple(allow.get(method.name, allow.get(_OTHERS, ())) if isinstance(allow, Mapping) else allow)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _name_problems(class_name: str, services: Sequence[Service], allow: Mapping[Any, Any]) -> Iterator[Problem]:
    names = list(dict.fromkeys(method.name for service in services for method in service.methods))
    for name in allow:
        if name != _OTHERS and name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            meant = near[0] if near else f'one of {", ".join(names)}, or "*" for all others'
            message = f"allow names `{name}`, which is not an RPC of {', '.join(each.full_name for each in services)}"
            yield Problem("allow", class_name, message, f"write {meant}")


def _value_problems(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the callers of one RPC, each with its remedy."""
    callers = _as_tuple(value)
    if not callers:
        yield f"{where} is empty: nobody may call", f"write {_WANTED}"
    for caller in callers:
        if isinstance(caller, type) or not (isinstance(caller, Identity | str) or callable(caller)):
            yield f"{where} is {caller!r}", f"write {_WANTED}"
        elif isinstance(caller, Identity | str):
            for wrong in who_problems(caller):
                yield f"{where}: {wrong}", f"write {_WANTED}"


def _function_problems(where: str, function: Any, methods: Sequence[Method]) -> Iterator[tuple[str, str]]:
    """Yield why a function can't decide about calls of these RPCs."""
    name = getattr(function, "__qualname__", repr(function))
    called = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(called) or inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        yield (
            f"{where}: {name} is async or a generator, and its result would count as True",
            "write a plain function that returns a bool; an interceptor can wait",
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        yield f"{where}: {name} can't be called with a request and a context", "give it these two parameters"
        return
    except ValueError:  # a function written in C without a signature
        return
    for method in methods:
        if method.cardinality.client_streaming:
            yield (
                f"{where}: {name} decides by the request, and {method.name} takes a stream of requests",
                "name identities for it, and check its messages in the handler or an interceptor",
            )
            continue
        wanted = _request_type(function)
        if isinstance(wanted, type) and not issubclass(method.request, wanted):
            yield (
                f"{where}: {name} takes a {wanted.__name__}, and {method.name} a {method.request.__name__}",
                f"annotate the request as {method.request.__name__}, or give {method.name} a separate rule",
            )


def _request_type(function: Any) -> Any:
    """Return the annotation of a function's first parameter; None if it has no annotation that can be read."""
    first = next(iter(inspect.signature(function).parameters.values()))
    try:
        return typing.get_type_hints(function).get(first.name)
    except (NameError, TypeError):  # a name of `if TYPE_CHECKING:`, or an object with __call__
        return None

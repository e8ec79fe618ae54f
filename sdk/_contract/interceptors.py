"""Interceptors of a deployment: checked when its class is decorated, and created in each replica.

See https://grpc.github.io/grpc/python/grpc_asyncio.html#grpc.aio.ServerInterceptor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from sdk.errors import DefinitionError, Problem

if TYPE_CHECKING:
    import grpc.aio

#: An interceptor, or a callable without parameters that returns one.
Interceptor: TypeAlias = "grpc.aio.ServerInterceptor | Callable[[], grpc.aio.ServerInterceptor]"


def check_interceptors(class_name: str, interceptors: Any) -> list[Problem]:
    """Return the problems of the interceptors that were given to the decorator.

    Args:
        class_name: Name of the decorated class, for the messages.
        interceptors: The argument of the decorator.

    Example:
        >>> [problem.message for problem in check_interceptors("Greeter", "logging")]
        ['interceptors must be a list, not str']
    """
    if not isinstance(interceptors, (list, tuple)):
        message = f"interceptors must be a list, not {type(interceptors).__name__}"
        return [Problem("interceptor", class_name, message, "write `interceptors=[...]`")]
    return [
        problem
        for number, given in enumerate(interceptors)
        for problem in _check(f"{class_name}, interceptors[{number}]", given, may_make_one=True)
    ]


def make_interceptors(class_name: str, interceptors: Sequence[Any]) -> list[grpc.aio.ServerInterceptor]:
    """Return the interceptors of one replica; the callables among those given are called to create theirs.

    Args:
        class_name: Name of the decorated class, for the message.
        interceptors: The argument of the decorator, after :func:`check_interceptors`.

    Raises:
        DefinitionError: A callable returned something other than an interceptor.
    """
    made, problems = [], []
    for number, given in enumerate(interceptors):
        interceptor = given if _is_interceptor(given) else given()
        made.append(interceptor)
        problems += _check(f"{class_name}, interceptors[{number}]", interceptor, may_make_one=False)
    if problems:
        raise DefinitionError(class_name, problems)
    return made


def _is_interceptor(given: Any) -> bool:
    import grpc.aio  # deferred: a class without interceptors does not need grpc

    return isinstance(given, grpc.aio.ServerInterceptor)


def _check(subject: str, given: Any, *, may_make_one: bool) -> list[Problem]:
    import grpc.aio

    kind = given if isinstance(given, type) else type(given)
    if _is_interceptor(given) or (may_make_one and issubclass(kind, grpc.aio.ServerInterceptor)):
        return []
    if issubclass(kind, grpc.ServerInterceptor):
        message = f"{kind.__name__} is a grpc.ServerInterceptor, which would block the event loop of all calls"
        return [Problem("sync-interceptor", subject, message, "derive it from grpc.aio.ServerInterceptor")]
    if may_make_one and callable(given):
        return []
    message = f"{given!r} is not an interceptor"
    remedy = "give a grpc.aio.ServerInterceptor, or a callable without parameters that returns one"
    return [Problem("interceptor", subject, message, remedy)]

"""Which interceptors stand before a deployment: checked when its class is decorated, made in each of its replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from sdk.errors import DefinitionError, Problem

if TYPE_CHECKING:
    import grpc.aio

#: An interceptor, or what makes one when it is called without arguments.
Interceptor: TypeAlias = "grpc.aio.ServerInterceptor | Callable[[], grpc.aio.ServerInterceptor]"


def check_interceptors(class_name: str, interceptors: Any) -> list[Problem]:
    """Return what is wrong with the interceptors that were given to the decorator.

    Args:
        class_name: The class they are for, for the messages.
        interceptors: What was given.
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
    """Return the interceptors of one replica: those given, and what the callables among them make.

    Args:
        class_name: The class they are for, for the message.
        interceptors: What was given to the decorator, checked.

    Raises:
        DefinitionError: A callable made something that is no interceptor.
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
    import grpc.aio  # not before there is an interceptor

    return isinstance(given, grpc.aio.ServerInterceptor)


def _check(subject: str, given: Any, *, may_make_one: bool) -> list[Problem]:
    import grpc.aio

    kind = given if isinstance(given, type) else type(given)
    if _is_interceptor(given) or (may_make_one and issubclass(kind, grpc.aio.ServerInterceptor)):
        return []
    if issubclass(kind, grpc.ServerInterceptor):
        message = f"{kind.__name__} is a grpc.ServerInterceptor, which would block the loop that all calls share"
        return [Problem("sync-interceptor", subject, message, "derive it from grpc.aio.ServerInterceptor")]
    if may_make_one and callable(given):
        return []
    message = f"{given!r} is no interceptor"
    remedy = "give a grpc.aio.ServerInterceptor, or a callable without parameters that returns one"
    return [Problem("interceptor", subject, message, remedy)]

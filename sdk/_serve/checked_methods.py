"""Checks where no wire server receives calls: behind Ray Serve's own gRPC proxy, and for its plain handles.

Both call the methods of the replica's object. So the class that runs in a replica gets a method around each one with a
rule (``allow``) or whose messages are checked (``validate``); the wire server calls the user's own, and checks in
``sdk/_wire/call_rules.py`` and ``sdk/_wire/checked_route.py``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from sdk._contract.effective_signature import CONTEXT_PARAMETER
from sdk._contract.implementations import find_implementation
from sdk._contract.validation import Checks
from sdk._validation.validator import invalid_request, invalid_response, violations_of
from sdk._wire.call_rules import check_call
from sdk.context import ServicerContext, current_call
from sdk.errors import RpcError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk._contract.definition import Definition
    from sdk.access import CallRule
    from sdk.service import Method

_NO_CHECKS = Checks(checks_requests=False, checks_responses=False)


def checked_methods(cls: type, definition: Definition) -> dict[str, Callable[..., Any]]:
    """Return a method around each one of a class whose calls or messages are checked, by name.

    Args:
        cls: The user's class.
        definition: Its definition.
    """
    return {
        method.python_name: _with_checks(
            cls, method, definition.checks.get(method.path, _NO_CHECKS), definition.rules.get(method.path)
        )
        for service in definition.services
        for method in service.methods
        if (method.path in definition.checks or method.path in definition.rules)
        and method.path not in definition.unimplemented
    }


def _with_checks(cls: type, method: Method, checks: Checks, rule: CallRule | None) -> Callable[..., Any]:
    """Return a method that checks caller and messages of the user's, except within a call of the wire server."""
    found = find_implementation(cls, method.python_name)
    assert found is not None  # no class lacks the method of an RPC, unless it is partial
    is_async, is_generator = found.kind
    takes_context = found.takes_context
    users = found.attribute

    def call(self: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call the user's method, after the checks of caller and request."""
        context = options.get(CONTEXT_PARAMETER)
        if rule is not None and current_call() is None:
            named = (value for name, value in options.items() if name != CONTEXT_PARAMETER)
            with _status_in(context):
                check_call(rule, args[0] if args else next(named, None), context, method.name)
        if not takes_context:
            options.pop(CONTEXT_PARAMETER, None)
        if checks.checks_requests and args and current_call() is None:
            first = _Requests(args[0], context) if method.cardinality.client_streaming else _checked(args[0], context)
            args = (first, *args[1:])
        bound = users.__get__(self, type(self)) if hasattr(type(users), "__get__") else users
        return bound(*args, **options)

    def check(response: Any) -> Any:
        if checks.checks_responses and current_call() is None and (broken := violations_of(response)):
            raise invalid_response(broken, getattr(found.function, "__qualname__", method.path))
        return response

    def check_result(result: Any) -> Any:
        if not method.cardinality.server_streaming:
            return check(result)
        return _each_async(result, check) if hasattr(result, "__aiter__") else map(check, result)

    async def run_async(self: Any, *args: Any, **options: Any) -> Any:
        return check_result(await call(self, args, options))

    def run(self: Any, *args: Any, **options: Any) -> Any:
        return check_result(call(self, args, options))

    async def generate_async(self: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
        async for response in call(self, args, options):
            yield check(response)

    def generate(self: Any, *args: Any, **options: Any) -> Iterator[Any]:
        yield from map(check, call(self, args, options))

    kinds = {(True, False): run_async, (False, False): run, (True, True): generate_async, (False, True): generate}
    plain = getattr(cls, method.python_name)
    made: Any = functools.wraps(plain)(kinds[is_async, is_generator])
    # Ray Serve passes the context, which an error's status needs, to methods with a parameter of this name.
    made.__signature__ = _taking_context(inspect.signature(plain))
    return made  # type: ignore[no-any-return]  # one of the functions above


def _taking_context(signature: inspect.Signature) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    if CONTEXT_PARAMETER not in signature.parameters:
        takes_more = bool(parameters) and parameters[-1].kind is Parameter.VAR_KEYWORD
        parameters.insert(
            len(parameters) - takes_more, Parameter(CONTEXT_PARAMETER, Parameter.KEYWORD_ONLY, default=None)
        )
    return signature.replace(parameters=parameters)


def _checked(request: Message, context: Any) -> Message:
    """Return a request.

    Raises:
        RpcError: It breaks a rule. Ray Serve answers with the status that the context has.
        RuleError: A rule can't be evaluated.
    """
    with _status_in(context):
        violations = violations_of(request)
        if violations:
            raise invalid_request(violations)
    return request


@contextlib.contextmanager
def _status_in(context: Any) -> Iterator[None]:
    """Set the status of an error in Ray Serve's context.

    Of its trailing metadata, which has the error's details, Ray Serve sends nothing then.
    """
    try:
        yield
    except RpcError as error:
        if context is not None and not isinstance(context, ServicerContext):
            context.set_code(error.code)
            context.set_details(error.details)
        raise


async def _each_async(responses: Any, check: Callable[[Any], Any]) -> AsyncIterator[Any]:
    async for response in responses:
        yield check(response)


class _Requests:
    """Ray Serve's stream of requests, with a check of each."""

    def __init__(self, requests: Any, context: Any) -> None:
        self._requests = requests
        self._context = context

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        return _checked(await anext(self._requests), self._context)

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> Any:
        return _checked(next(self._requests), self._context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)

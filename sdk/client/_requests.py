"""Checks of the requests of clients before they are passed to grpc.

grpc serializes a message of any class, and sends an empty message for some values that are not messages.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from sdk._misuse import MISSING, missing_request
from sdk._validation.annotated import has_rules

if TYPE_CHECKING:
    from sdk.service import Method

logger = logging.getLogger("sdk.client")


#: Raises if a request breaks the rules of its proto.
Validation: TypeAlias = Callable[[Any], None]


def validation_of(method: Method) -> Validation | None:
    """Return the check of an RPC's requests against the rules of their proto; None if they have no rules.

    Raises:
        MissingExtraError: There are rules, and the package that evaluates them is not installed.
    """
    if not has_rules(method.request.DESCRIPTOR):
        return None
    from sdk._validation import validator  # deferred: clients that check nothing do not need it

    validator.collector()
    return validator.check_request


def check_request(request: Any, method: Method, validation: Validation | None = None) -> None:
    """Check that a request is a message of an RPC's type, and keeps the rules of its proto.

    Args:
        request: The argument of the call.
        method: The RPC.
        validation: The check of its rules, if the client checks them.

    Raises:
        TypeError: It has another type; the message names both types.
        RpcError: It breaks rules.
    """
    _check_type(request, method)
    if validation is not None:
        validation(request)


def _check_type(request: Any, method: Method) -> None:
    if isinstance(request, method.request):
        return
    if request is MISSING:
        raise missing_request(method)
    name = _full_name(request)
    # A proto file loaded under two module names makes two classes for one message.
    if name != method.request.DESCRIPTOR.full_name:
        raise TypeError(f"{method.python_name} takes a {method.request.DESCRIPTOR.full_name}, not a {name}")


class CheckedRequests(Iterator[Any]):
    """Iterator that checks each request of a client stream.

    Args:
        requests: The argument of the call.
        method: The RPC.
        validation: The check of its rules, if the client checks them.

    Attributes:
        error: The exception that ended the iteration, or None. grpc does not report it.

    Raises:
        TypeError: ``requests`` is not iterable.
    """

    def __init__(self, requests: Iterable[Any], method: Method, validation: Validation | None = None) -> None:
        if not isinstance(requests, Iterable):
            raise _not_iterable(requests, method, "an iterable")
        self._requests = iter(requests)
        self._method = method
        self._validation = validation
        self.error: Exception | None = None

    def __next__(self) -> Any:
        try:
            request = next(self._requests)
            check_request(request, self._method, self._validation)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        return request


def checked_requests(requests: Any, method: Method, validation: Validation | None = None) -> Any:
    """Return an iterator that checks each request of a client stream of an async client.

    If it raises, grpc cancels the call without a reason, so the error is logged.

    Args:
        requests: An iterable, an async iterable, or None.
        method: The RPC.
        validation: The check of its rules, if the client checks them.

    Returns:
        An async iterator for an async iterable, an iterator for an iterable, and None for None.

    Raises:
        TypeError: ``requests`` is not iterable.
    """
    if requests is None:
        return None
    if hasattr(requests, "__aiter__"):
        return _checked_async(requests, method, validation)
    if isinstance(requests, Iterable):
        return _checked(requests, method, validation)
    raise _not_iterable(requests, method, "an iterable or an async iterable")


def _checked(requests: Iterable[Any], method: Method, validation: Validation | None) -> Iterator[Any]:
    try:
        for request in requests:
            check_request(request, method, validation)
            yield request
    except Exception:
        _log(method)
        raise


async def _checked_async(requests: Any, method: Method, validation: Validation | None) -> AsyncIterator[Any]:
    try:
        async for request in requests:
            check_request(request, method, validation)
            yield request
    except Exception:
        _log(method)
        raise


def _log(method: Method) -> None:
    logger.exception("%s is cancelled: the iterator of its requests raised", method.path)


def _not_iterable(given: Any, method: Method, wanted: str) -> TypeError:
    if given is MISSING:
        return missing_request(method, f"{wanted} of")
    expected = method.request.DESCRIPTOR.full_name
    return TypeError(f"{method.python_name} takes {wanted} of {expected}, not a {_full_name(given)}")


def _full_name(value: Any) -> str:
    return str(getattr(getattr(value, "DESCRIPTOR", None), "full_name", type(value).__name__))

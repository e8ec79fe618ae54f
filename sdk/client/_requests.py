"""The requests of clients, looked at before grpc gets them: it sends any message, and an empty one for what is none."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import grpc.aio

    from sdk.service import Method

    C = TypeVar("C", grpc.aio.StreamUnaryCall[Any, Any], grpc.aio.StreamStreamCall[Any, Any])

logger = logging.getLogger("sdk.client")


def check_request(request: Any, method: Method) -> None:
    """Check that a request is a message of an RPC's type.

    Args:
        request: What was given.
        method: The RPC.

    Raises:
        TypeError: It is something else; the text names both types.
    """
    if isinstance(request, method.request):
        return
    name = _full_name(request)
    # The same proto, loaded under two module names, makes two classes of one message.
    if name != method.request.DESCRIPTOR.full_name:
        raise TypeError(f"{method.python_name} takes a {method.request.DESCRIPTOR.full_name}, not a {name}")


class Requests(Iterator[Any]):
    """A stream of requests that are checked one by one. What goes wrong in it is kept as ``error``.

    Args:
        requests: What was given.
        method: The RPC.

    Raises:
        TypeError: It can't be iterated over.
    """

    def __init__(self, requests: Iterable[Any], method: Method) -> None:
        if not isinstance(requests, Iterable):
            raise _no_stream(requests, method, "an iterable")
        self._requests = iter(requests)
        self._method = method
        self.error: Exception | None = None

    def __next__(self) -> Any:
        try:
            request = next(self._requests)
            check_request(request, self._method)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        return request


def checked_requests(requests: Any, method: Method) -> Any:
    """Return a stream of requests for an async client, checked one by one; async or not, as it was given.

    When it fails, grpc cancels the call and does not say why: the error is logged.

    Args:
        requests: An iterable, an async one, or None.
        method: The RPC.

    Raises:
        TypeError: It can't be iterated over.
    """
    if requests is None:
        return None
    if hasattr(requests, "__aiter__"):
        return _checked_async(requests, method)
    if isinstance(requests, Iterable):
        return _checked(requests, method)
    raise _no_stream(requests, method, "an iterable or an async one")


def check_writes(call: C, method: Method) -> C:
    """Have the requests checked that are written to a call of an async client, each before it is sent.

    Args:
        call: A call without an iterator of requests.
        method: The RPC.

    Returns:
        The same call. Its ``write`` raises ``TypeError`` for what is no request of the RPC; the call goes on.
    """
    write = call.write

    async def checked_write(request: Any) -> None:
        check_request(request, method)
        await write(request)

    call.write = checked_write  # type: ignore[method-assign]  # grpc has no other way to see what is written
    return call


def _checked(requests: Iterable[Any], method: Method) -> Iterator[Any]:
    try:
        for request in requests:
            check_request(request, method)
            yield request
    except Exception:
        _log(method)
        raise


async def _checked_async(requests: Any, method: Method) -> AsyncIterator[Any]:
    try:
        async for request in requests:
            check_request(request, method)
            yield request
    except Exception:
        _log(method)
        raise


def _log(method: Method) -> None:
    logger.exception("%s is cancelled: the iterator of its requests failed", method.path)


def _no_stream(given: Any, method: Method, wanted: str) -> TypeError:
    expected = method.request.DESCRIPTOR.full_name
    return TypeError(f"{method.python_name} takes {wanted} of {expected}, not a {_full_name(given)}")


def _full_name(value: Any) -> str:
    return str(getattr(getattr(value, "DESCRIPTOR", None), "full_name", type(value).__name__))

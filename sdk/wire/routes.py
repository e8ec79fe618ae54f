"""The methods that a wire server answers: for each path the handler, and which way of answering fits it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from sdk.wire.call import INTERNAL, Call
from sdk.wire.frames import FrameError

if TYPE_CHECKING:
    from sdk.service import Method, Row


class Route:
    """One method bound to its handler, with everything looked up once that a call needs.

    Args:
        row: The method and the bound method that answers it.
    """

    __slots__ = (
        "_from_string", "answer", "client_streaming", "handler", "is_generator", "label", "method", "response_type",
        "takes_context",
    )  # fmt: skip

    def __init__(self, row: Row) -> None:
        method = row.method
        self.method = method
        self.handler = row.handler
        self.label = getattr(row.handler, "__qualname__", method.path)
        self.client_streaming = method.cardinality.client_streaming
        self.takes_context = "grpc_context" in inspect.signature(row.handler).parameters
        self.response_type = method.response
        self.is_generator = _is(inspect.isgeneratorfunction, row.handler)
        self._from_string: Callable[[bytes], Any] = method.request.FromString
        self.answer = _answer(method, row.handler)

    def decode_request(self, data: bytes) -> Any:
        """Return the request message.

        Raises:
            FrameError: The bytes are not a message of the method's request type.
        """
        try:
            return self._from_string(data)
        except DecodeError as error:
            name = self.method.request.DESCRIPTOR.full_name
            raise FrameError(INTERNAL, f"the request is not a {name}: {error}") from None


def build_routes(rows: Iterable[Row]) -> dict[bytes, Route]:
    """Return the routes by path."""
    return {row.method.path.encode(): Route(row) for row in rows}


def _answer(method: Method, handler: Callable[..., Any]) -> Callable[[Call], Awaitable[None]]:
    if method.cardinality.server_streaming:
        return Call.answer_stream_async if _is(inspect.isasyncgenfunction, handler) else Call.answer_stream_sync
    return Call.answer_unary_async if _is(inspect.iscoroutinefunction, handler) else Call.answer_unary_sync


def _is(test: Callable[[Any], bool], handler: Any) -> bool:
    while isinstance(handler, partial):
        handler = handler.func
    return test(handler) or test(getattr(handler, "__call__", None))  # noqa: B004  # its kind is asked, not whether it is there

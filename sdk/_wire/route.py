"""The methods that a wire server answers: for each path the handler, and which way of answering fits it."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from sdk._contract.effective_signature import takes_context
from sdk._contract.implementations import handler_kind
from sdk._contract.responses import wrong_response
from sdk._wire.answering import (
    answer_inflated,
    answer_stream_async,
    answer_stream_sync,
    answer_unary_async,
    answer_unary_sync,
)
from sdk._wire.compression import compressing
from sdk._wire.frames import FrameError
from sdk._wire.interceptors import intercept

if TYPE_CHECKING:
    from sdk._wire.call import Call
    from sdk.errors import RpcError
    from sdk.service import Method, MethodBinding

_INTERNAL = grpc.StatusCode.INTERNAL


class Route:
    """One method bound to its handler, with everything looked up once that a call needs.

    Args:
        binding: The method and the bound method that answers it.
    """

    __slots__ = (
        "_from_string", "_inflating", "answer", "client_streaming", "handler", "is_generator", "label", "method",
        "response_type", "server_streaming", "takes_context",
    )  # fmt: skip

    def __init__(self, binding: MethodBinding) -> None:
        method = binding.method
        self.method = method
        self.handler = binding.handler
        self.label = getattr(binding.handler, "__qualname__", method.path)
        self.client_streaming = method.cardinality.client_streaming
        self.server_streaming = method.cardinality.server_streaming
        self.takes_context = takes_context(binding.handler)
        self.response_type = method.response
        is_async, self.is_generator = handler_kind(binding.handler)
        self._from_string: Any = method.request.FromString  # its type knows bytes only
        self.answer = _answer(method, is_async)
        self._inflating: Route | None = None

    @property
    def inflating(self) -> Route:
        """The same for calls whose one request message may be compressed; others do not pay for it."""
        if self._inflating is None:
            self._inflating = copy.copy(self)
            self._inflating.answer = partial(answer_inflated, self.answer)
        return self._inflating

    def decode_request(self, data: bytes | bytearray) -> Any:
        """Return the request message.

        Raises:
            FrameError: The bytes are not a message of the method's request type.
        """
        try:
            return self._from_string(data)
        except DecodeError as error:
            name = self.method.request.DESCRIPTOR.full_name
            raise FrameError(_INTERNAL.value[0], f"the request is not a {name}: {error}") from None

    def encode_response(self, response: Any) -> bytes:
        """Return the bytes of a response message.

        Raises:
            RpcError: It is not a message of the method's response type.
        """
        if type(response) is not self.response_type:
            raise self.wrong_type(response)
        data: bytes = response.SerializeToString()
        return data

    def wrong_type(self, value: Any, prefix: str = "") -> RpcError:
        """Return the error for a handler that answers with something else than its proto says."""
        return wrong_response(self.method, self.label, value, prefix)


def build_routes(
    bindings: Iterable[MethodBinding],
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> dict[bytes, Route]:
    """Return the routes by path.

    Args:
        bindings: The methods and their handlers.
        compression: How answers are compressed whose handler does not say it.
        interceptors: What stands between a call and its handler, the outermost first.
    """
    routes = {binding.method.path.encode(): Route(binding) for binding in bindings}
    if interceptors:
        intercept(routes, interceptors)
    if compression is not None:
        for route in routes.values():
            route.answer = compressing(compression, route.answer)
    return routes


def _answer(method: Method, is_async: bool) -> Callable[[Call, Route], Awaitable[None]]:
    if method.cardinality.server_streaming:
        return answer_stream_async if is_async else answer_stream_sync
    return answer_unary_async if is_async else answer_unary_sync

"""One method bound to its handler, with everything looked up once that its calls need."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.message import DecodeError

from sdk._contract.effective_signature import takes_context
from sdk._contract.implementations import handler_kind
from sdk._contract.responses import wrong_response
from sdk._wire.call_counts import LATENCY_BOUNDS_MS, CallCounts
from sdk._wire.frames import MalformedRequest

if TYPE_CHECKING:
    from sdk.errors import RpcError
    from sdk.service import MethodBinding

#: Answers a call: runs the handler and sends its messages. Any: a Call, whose module imports this one.
Answer: TypeAlias = "Callable[[Any, Route], Awaitable[None]]"


class Route:
    """One method bound to its handler.

    Args:
        binding: The method and the bound method that answers it.
        latency_bounds_ms: Upper bounds of the buckets in which calls are counted, in milliseconds.

    Attributes:
        answer: The way to answer a call, which :mod:`sdk._wire.dispatch` picks.
        counts: The calls that have ended.
        is_async: True if the handler runs on the loop, False if it runs in a thread.
        is_generator: True if the handler is a generator function.
        label: The handler's name, for messages.
    """

    __slots__ = (
        "_from_string", "_inflating", "_serialize", "answer", "client_streaming", "counts", "handler", "is_async",
        "is_generator", "label", "method", "response_type", "server_streaming", "takes_context",
    )  # fmt: skip

    answer: Answer

    def __init__(self, binding: MethodBinding, latency_bounds_ms: Sequence[float] = LATENCY_BOUNDS_MS) -> None:
        method = binding.method
        self.method = method
        self.handler = binding.handler
        self.label = getattr(binding.handler, "__qualname__", method.path)
        self.client_streaming = method.cardinality.client_streaming
        self.server_streaming = method.cardinality.server_streaming
        self.takes_context = takes_context(binding.handler)
        self.response_type = method.response
        self.is_async, self.is_generator = handler_kind(binding.handler)
        self._from_string: Any = method.request.FromString  # its type knows bytes only
        self._serialize: Any = method.response.SerializeToString  # of the class: a field may have this name
        self._inflating: Route | None = None
        self.counts = CallCounts(latency_bounds_ms)

    @property
    def inflating(self) -> Route:
        """The same route for calls whose one request message may be compressed; other calls do not pay for it."""
        if self._inflating is None:
            self._inflating = copy.copy(self)
            self._inflating.answer = partial(_inflate_and_answer, self.answer)
        return self._inflating

    def decode_request(self, data: bytes | bytearray) -> Any:
        """Return the request message.

        Raises:
            MalformedRequest: The bytes are not a message of the method's request type.
        """
        try:
            return self._from_string(data)
        except DecodeError as error:
            name = self.method.request.DESCRIPTOR.full_name
            raise MalformedRequest(f"the request is not a {name}: {error}") from None

    def encode_response(self, response: Any) -> bytes:
        """Return the bytes of a response message.

        Raises:
            RpcError: It is not a message of the method's response type.
        """
        if type(response) is not self.response_type:
            raise self.wrong_type(response)
        data: bytes = self._serialize(response)
        return data

    def wrong_type(self, value: Any, prefix: str = "") -> RpcError:
        """Return the error for a handler that returned something other than its proto declares."""
        return wrong_response(self.method, self.label, value, prefix)


async def _inflate_and_answer(answer: Answer, call: Any, route: Route) -> None:
    await call.inflate()
    await answer(call, route)

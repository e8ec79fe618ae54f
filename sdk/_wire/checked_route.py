"""A route whose messages are checked against the rules of their protos. Other routes do not pay for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdk._validation.validator import FIRST_ONLY_BYTES, collector, invalid_request, invalid_response, raise_fault
from sdk._wire.route import Route

if TYPE_CHECKING:
    from sdk.service import MethodBinding


def route_class(binding: MethodBinding) -> type[Route]:
    """Return the class of a method's route: ``Route`` itself if nothing is checked."""
    if not binding.checks_responses:
        return _CheckedRequests if binding.checks_requests else Route
    return _CheckedMessages if binding.checks_requests else _CheckedResponses


class _CheckedRequests(Route):
    """Checks each request before the handler gets it."""

    __slots__ = ("_collect",)

    def __init__(self, binding: MethodBinding, latency_bounds_ms: Sequence[float]) -> None:
        super().__init__(binding, latency_bounds_ms)
        self._collect = collector()

    def decode_request(self, data: bytes | bytearray) -> Any:
        request = Route.decode_request(self, data)
        try:
            violations = self._collect(request, fail_fast=len(data) > FIRST_ONLY_BYTES)
        except Exception as error:
            raise_fault(error, request)
        if violations:
            raise invalid_request(violations)
        return request


class _CheckedResponses(Route):
    """Checks each response before it is sent."""

    __slots__ = ("_collect",)

    def __init__(self, binding: MethodBinding, latency_bounds_ms: Sequence[float]) -> None:
        super().__init__(binding, latency_bounds_ms)
        self._collect = collector()

    def encode_response(self, response: Any) -> bytes:
        data = Route.encode_response(self, response)
        try:
            violations = self._collect(response, fail_fast=len(data) > FIRST_ONLY_BYTES)
        except Exception as error:
            raise_fault(error, response)
        if violations:
            raise invalid_response(violations, self.label)
        return data


class _CheckedMessages(_CheckedRequests):
    """Checks both."""

    __slots__ = ()

    encode_response = _CheckedResponses.encode_response

"""A route whose messages are checked against the rules of their protos. Other routes do not pay for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdk._validation.validator import collector, invalid_request, invalid_response, violations_of
from sdk._wire.route import Route

if TYPE_CHECKING:
    from sdk.service import MethodBinding


def route_class(binding: MethodBinding) -> type[Route]:
    """Return the class of a method's route: ``Route`` itself if nothing is checked."""
    if binding.checks_requests or binding.checks_responses:
        collector()  # now: the first call would wait for its import, or find that it is not installed
    if not binding.checks_responses:
        return _CheckedRequests if binding.checks_requests else Route
    return _CheckedMessages if binding.checks_requests else _CheckedResponses


class _CheckedRequests(Route):
    """Checks each request before the handler gets it."""

    __slots__ = ()

    def decode_request(self, data: bytes | bytearray) -> Any:
        request = Route.decode_request(self, data)
        if violations := violations_of(request, len(data)):
            raise invalid_request(violations)
        return request


class _CheckedResponses(Route):
    """Checks each response before it is sent."""

    __slots__ = ()

    def encode_response(self, response: Any) -> bytes:
        data = Route.encode_response(self, response)
        if violations := violations_of(response, len(data)):
            raise invalid_response(violations, self.label)
        return data


class _CheckedMessages(_CheckedRequests):
    """Checks both."""

    __slots__ = ()

    encode_response = _CheckedResponses.encode_response

"""The error for a handler that returns something other than the response message of its RPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk.service import Method


def wrong_response(method: Method, label: str, response: Any, expected_prefix: str = "") -> RpcError:
    """Return the error, with status INTERNAL.

    Args:
        method: The RPC.
        label: Name of the handler in the message, ``"Greeter.SayHello"``.
        response: The value that the handler returned or yielded.
        expected_prefix: Text before the message name that the proto says, ``"a stream of "``.
    """
    import grpc  # the other modules of this package are used without it

    got = "None" if response is None else f"a {type(response).__module__}.{type(response).__qualname__}"
    expected = expected_prefix + method.response.DESCRIPTOR.full_name
    return RpcError(grpc.StatusCode.INTERNAL, f"{label} returned {got}; the proto says {expected}")

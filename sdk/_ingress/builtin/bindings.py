"""Handlers and metadata shared by the services of the proxy itself."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import grpc.aio

Context = grpc.aio.ServicerContext[Any, Any]


def unary(handler: Any, request: Any, response: Any) -> Any:
    """Return the handler of a unary method for these message classes."""
    return grpc.unary_unary_rpc_method_handler(
        handler, request_deserializer=request.FromString, response_serializer=response.SerializeToString
    )


def answer_request_id(context: Context) -> None:
    """Set the trailing ``request_id`` metadata that every response has."""
    request_id = last_value(context, "request_id") or last_value(context, "x-request-id") or str(uuid.uuid4())
    context.set_trailing_metadata((("request_id", request_id),))


def last_value(context: Context, key: str) -> str | None:
    """Return the last value of a metadata key; None if it is absent."""
    values = [value for name, value in context.invocation_metadata() or () if name == key]
    return str(values[-1]) if values else None

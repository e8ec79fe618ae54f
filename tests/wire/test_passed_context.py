"""A context that is passed to another deployment."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle
import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import RpcError
from sdk.context import ServicerContext
from tests.support.wire_rig import UNARY, Peer

HEADERS = {
    "request_id": "r",
    "application": "app",
    "multiplexed_model_id": "m",
    "traceparent": "00-1-2-01",
    "tracestate": "a=b",
    "k__bin": "AAE",
    "x__forwarded__for": "10.0.0.1:5000",
    "x__forwarded__proto": "https",
    "grpc__timeout": "1H",
}
READ = (
    "request_id", "application", "multiplexed_model_id", "traceparent", "tracestate", "invocation_metadata", "peer",
    "peer_identities", "peer_identity_key", "auth_context", "code", "details", "trailing_metadata",
)  # fmt: skip


@pytest.fixture(params=[pickle, cloudpickle])
async def contexts(request: Any, serve: Any) -> tuple[dict[str, Any], ServicerContext]:
    """The values that the handler reads, and its context after it was pickled twice."""
    found: list[Any] = []

    async def handler(message: Any, grpc_context: ServicerContext) -> StringValue:
        grpc_context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        grpc_context.set_trailing_metadata([("k", "v")])
        found.append({name: getattr(grpc_context, name)() for name in READ})
        context = grpc_context
        for _ in range(2):
            context = pickle.loads(request.param.dumps(context))
        found.append(context)
        return StringValue()

    async def body(serve: Any) -> None:
        peer = Peer(serve(Get=(UNARY, handler)))
        peer.call("Get", Int32Value(), **HEADERS)
        await peer.answered()

    await body(serve)
    return found[0], found[1]


def test_the_request_can_be_read_elsewhere(contexts: Any) -> None:
    read, context = contexts
    assert {name: getattr(context, name)() for name in READ} == read
    assert 3000 < context.time_remaining() <= 3600
    assert (context.is_active(), context.cancelled(), context.done()) == (True, False, False)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("set_code", (grpc.StatusCode.ABORTED,)),
        ("set_details", ("text",)),
        ("set_trailing_metadata", ([("k", "v")],)),
        ("send_initial_metadata", ([("k", "v")],)),
        ("set_compression", (grpc.Compression.Gzip,)),
        ("disable_next_message_compression", ()),
        ("add_callback", (print,)),
        ("add_done_callback", (print,)),
        ("cancel", ()),
        ("read", ()),
        ("write", (StringValue(),)),
    ],
)
def test_methods_of_the_handler_are_refused_elsewhere(contexts: Any, method: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(RuntimeError, match=r"passed to another deployment.*raise sdk\.RpcError"):
        getattr(contexts[1], method)(*arguments)


def test_abort_elsewhere_is_an_error_that_ends_the_callers_call(contexts: Any) -> None:
    with pytest.raises(RpcError) as raised:
        contexts[1].abort(grpc.StatusCode.NOT_FOUND, "nobody")
    arrived = pickle.loads(pickle.dumps(raised.value))
    assert (type(arrived), arrived.code, arrived.details) == (type(raised.value), grpc.StatusCode.NOT_FOUND, "nobody")

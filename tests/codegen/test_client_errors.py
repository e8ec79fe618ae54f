"""Errors of generated clients: notes on failed calls, and the remedy for wrong use."""

from __future__ import annotations

import importlib
import queue
import re
import sys
import traceback
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from sdk._misuse import example_request

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def awkward(generated: Path) -> Iterator[ModuleType]:
    sys.path.insert(0, str(generated))
    yield importlib.import_module("awkward_sdk")
    sys.path.remove(str(generated))


class Failing(grpc.GenericRpcHandler):
    """Ends every call with a status; a response stream has one message before it."""

    def __init__(self, service: Any) -> None:
        self.methods = {method.path: method for method in service.methods}

    def service(self, details: Any) -> Any:
        method = self.methods[details.method]
        up, down = method.cardinality.client_streaming, method.cardinality.server_streaming

        def fail(request: Any, context: Any) -> Any:
            if up:
                list(request)  # a client whose request is under way may see INTERNAL instead of the status
            context.set_trailing_metadata((("request_id", "r1"),))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong")

        def fail_later(request: Any, context: Any) -> Iterator[Any]:
            yield method.response()
            fail(request, context)

        kind = f"{'stream' if up else 'unary'}_{'stream' if down else 'unary'}_rpc_method_handler"
        return getattr(grpc, kind)(
            fail_later if down else fail,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )


@pytest.fixture(scope="module")
def target(awkward: ModuleType) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Failing(awkward.AWKWARD)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def argument(awkward: ModuleType, name: str) -> Any:
    method = awkward.AWKWARD[name]
    request = method.request(**({"side": 1.0} if name == "Both" else {}))
    return [request] if method.cardinality.client_streaming else request


def notes(error: grpc.RpcError) -> list[str]:
    shown = traceback.format_exception_only(error)[-1]
    assert error.__notes__ == [shown.rstrip("\n")]  # type: ignore[attr-defined]  # of the error, not of its class
    return list(error.__notes__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["Unary", "Down", "Up", "Both"])
def test_a_blocking_call_names_method_target_and_request_id(name: str, awkward: ModuleType, target: str) -> None:
    with awkward.AwkwardSyncClient(target) as client:
        with pytest.raises(grpc.RpcError) as caught:
            list(getattr(client, name)(argument(awkward, name)))
        assert notes(caught.value) == [f"call of {awkward.AWKWARD[name].path} at {target}, request_id r1"]
        caught.value.add_note("tried twice")
        assert caught.value.__notes__[1:] == ["tried twice"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["Unary", "Down", "Up", "Both"])
@pytest.mark.parametrize("reads", [False, True])
async def test_an_async_call_names_them_too(name: str, reads: bool, awkward: ModuleType, target: str) -> None:
    async with awkward.AwkwardClient(target) as client:
        call = getattr(client, name)(argument(awkward, name))
        with pytest.raises(grpc.RpcError) as caught:
            await consume(call, reads)
        assert notes(caught.value) == [f"call of {awkward.AWKWARD[name].path} at {target}, request_id r1"]
        assert isinstance(call, grpc.aio.Call)


async def consume(call: Any, reads: bool) -> None:
    if not isinstance(call, (grpc.aio.UnaryStreamCall, grpc.aio.StreamStreamCall)):
        await call
    elif reads:
        while await call.read() is not grpc.aio.EOF:
            pass
    else:
        async for _ in call:
            pass


def test_with_call_names_them_too(awkward: ModuleType, target: str) -> None:
    with awkward.AwkwardSyncClient(target) as client, pytest.raises(grpc.RpcError) as caught:
        client.Unary.with_call(argument(awkward, "Unary"))
    assert notes(caught.value) == [f"call of {awkward.AWKWARD['Unary'].path} at {target}, request_id r1"]


async def test_without_an_answer_the_request_id_is_that_of_the_client(awkward: ModuleType) -> None:
    # Nothing listens on port 1.
    with awkward.AwkwardSyncClient("127.0.0.1:1", retry=None) as client, pytest.raises(grpc.RpcError) as caught:
        client.Unary(argument(awkward, "Unary"), request_id="mine")
    assert notes(caught.value) == [f"call of {awkward.AWKWARD['Unary'].path} at 127.0.0.1:1, request_id mine"]
    async with awkward.AwkwardClient("127.0.0.1:1", retry=None) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.Unary(argument(awkward, "Unary"))
    assert notes(caught.value) == [f"call of {awkward.AWKWARD['Unary'].path} at 127.0.0.1:1"]


def test_a_channel_that_was_given_has_no_name(awkward: ModuleType, target: str) -> None:
    with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
        awkward.AwkwardSyncClient(channel).Unary(argument(awkward, "Unary"))
    assert notes(caught.value) == [f"call of {awkward.AWKWARD['Unary'].path}, request_id r1"]


def test_a_stream_that_runs_has_no_note_yet(awkward: ModuleType, target: str) -> None:
    with awkward.AwkwardSyncClient(target) as client:
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = client.Both(iter(requests.get, None))  # waits for a request
        assert getattr(call, "__notes__", []) == []
        call.cancel()
        requests.put(None)


@pytest.mark.parametrize(
    ("name", "arguments", "example"),
    [("Unary", {}, "Outer(inner=…)"), ("Down", {"radius": 1}, "Circle(radius=…)")],
)
async def test_a_call_without_a_request_shows_how(
    name: str, arguments: dict[str, Any], example: str, awkward: ModuleType
) -> None:
    text = f"{name} takes a {awkward.AWKWARD[name].request.DESCRIPTOR.full_name}: {name}({example})"
    for kind in (awkward.AwkwardSyncClient, awkward.AwkwardClient):
        with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
            getattr(kind("127.0.0.1:1"), name)(**arguments)


def test_a_stream_of_requests_is_shown_as_a_list(awkward: ModuleType) -> None:
    text = "Up takes an iterable of google.protobuf.StringValue: Up([StringValue(value=…), …])"
    for call in (awkward.AwkwardSyncClient("x:1").Up, awkward.AwkwardSyncClient("x:1").Up.with_call):
        with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
            call()


def test_a_field_next_to_the_request_is_named_as_one(awkward: ModuleType, target: str) -> None:
    text = "Up got an unexpected keyword argument 'value', which is a field of the request: Up(StringValue(value=…))"
    with (
        awkward.AwkwardSyncClient(target) as client,
        pytest.raises(TypeError, match=f"^{re.escape(text)}$"),
    ):
        client.Up([], value="x")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("Unry", "did you mean 'Unary'?"), ("unary", "did you mean 'Unary'?"), ("Zzz", "it has Both, Down, Unary, Up")],
)
def test_a_misspelt_rpc_is_an_error_with_suggestions(name: str, remedy: str, awkward: ModuleType) -> None:
    for kind in (awkward.AwkwardSyncClient, awkward.AwkwardClient):
        client = kind("127.0.0.1:1")
        text = f"{kind.__name__} has no RPC {name!r}; {remedy}"
        with pytest.raises(AttributeError, match=f"^{re.escape(text)}$"):
            getattr(client, name)
        assert not hasattr(client, "__len__")
        with pytest.raises(AttributeError, match="object has no attribute '_private'"):
            _ = client._private


def test_a_deprecated_rpc_is_suggested_too(awkward: ModuleType) -> None:
    with pytest.warns(DeprecationWarning, match="Retired is deprecated"):
        client = awkward.RetiredSyncClient("127.0.0.1:1")
    with pytest.raises(AttributeError, match="RetiredSyncClient has no RPC 'Odl'; did you mean 'Old'"):
        _ = client.Odl


def test_the_example_of_a_request_ends_after_three_fields() -> None:
    method: Any = SimpleNamespace(request=FieldDescriptorProto)
    assert example_request(method) == "FieldDescriptorProto(name=…, number=…, label=…, …)"

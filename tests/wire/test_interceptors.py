"""Interceptors of grpc.aio around handlers of every kind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from sdk import RpcError, current_context
from sdk._wire import answering
from tests.support.method_kinds import (
    HANDLERS,
    ask,
    bidi,
    bidi_sync,
    client,
    client_sync,
    server,
    server_sync,
    server_writes,
    texts,
    unary,
)
from tests.support.wire_rig import BIDI, CLIENT, SERVER, UNARY, Peer

Base = grpc.aio.ServerInterceptor


def wrap(handler: Any, wrapper: Callable[[Any], Any], stream_wrapper: Callable[[Any], Any]) -> Any:
    """Return a handler like another one, with its function wrapped."""
    kinds = ("unary", "stream")
    name = f"{kinds[handler.request_streaming]}_{kinds[handler.response_streaming]}"
    function = getattr(handler, name)
    wrapped = stream_wrapper(function) if handler.response_streaming else wrapper(function)
    return getattr(grpc, f"{name}_rpc_method_handler")(
        wrapped, handler.request_deserializer, handler.response_serializer
    )


class Logging(Base):
    """Logs each call, and signs every response."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.log.append(f"{self.name} {handler_call_details.method}")
        metadata = dict(handler_call_details.invocation_metadata)
        assert metadata["request_id"] == "r"
        assert handler_call_details.invocation_metadata[0].key
        return wrap(await continuation(handler_call_details), self._unary, self._stream)

    def _unary(self, inner: Any) -> Any:
        async def outer(request: Any, context: Any) -> Any:
            self.log.append(f"{self.name} in")
            response = await inner(request, context)
            self.log.append(f"{self.name} out")
            return self._signed(response)

        return outer

    def _stream(self, inner: Any) -> Any:
        async def outer(request: Any, context: Any) -> Any:
            self.log.append(f"{self.name} in")
            async for response in inner(request, context):
                yield self._signed(response)
            self.log.append(f"{self.name} out")

        return outer

    def _signed(self, response: StringValue) -> StringValue:
        return StringValue(value=f"{response.value} {self.name}")


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_the_first_interceptor_is_the_outermost(cardinality: Any, handler: Any) -> None:
    log: list[str] = []
    answer = await ask(cardinality, handler, Logging("a", log), Logging("b", log), request_id="r")
    assert log == ["a /t.T/Get", "b /t.T/Get", "a in", "b in", "b out", "a out"]
    signature = "" if handler is server_writes else " b a"  # write() bypasses interceptors that wrap the function
    assert texts(answer) == [f"7 r{signature}"] * (2 if cardinality in (SERVER, BIDI) else 1)
    assert answer.trailers == [("grpc-status", "0"), ("request_id", "r")]


async def test_without_interceptors_a_route_is_answered_directly(serve: Any) -> None:
    routes = serve(Get=(UNARY, unary), Stream=(SERVER, server_sync)).routes
    assert routes[b"/t.T/Get"].answer is answering.answer_unary_async
    assert routes[b"/t.T/Stream"].answer is answering.answer_stream_sync


class Metadata(Base):
    """Sets code and metadata around the handler, through its own context."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        def unary(inner: Any) -> Any:
            async def outer(request: Any, context: Any) -> Any:
                await context.send_initial_metadata([("early", "1")])
                response = await inner(request, context)
                context.set_trailing_metadata([*context.trailing_metadata(), ("late", "2")])
                context.set_code(grpc.StatusCode.DATA_LOSS)
                context.set_details("lost")
                return response

            return outer

        def stream(inner: Any) -> Any:
            async def outer(request: Any, context: Any) -> Any:
                await context.send_initial_metadata([("early", "1")])
                async for response in inner(request, context):
                    yield response
                context.set_trailing_metadata([*context.trailing_metadata(), ("late", "2")])
                context.set_code(grpc.StatusCode.DATA_LOSS)
                context.set_details("lost")

            return outer

        return wrap(await continuation(handler_call_details), unary, stream)


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_an_interceptor_sets_metadata_and_code(cardinality: Any, handler: Any) -> None:
    answer = await ask(cardinality, handler, Metadata())
    assert ("early", "1") in answer.head
    assert answer.messages
    trailers = [("grpc-status", "15"), ("grpc-message", "lost"), ("late", "2"), ("request_id", "made")]
    assert answer.trailers == trailers


class Auth(Base):
    """The terminating interceptor of gRPC's own examples: one unary handler that aborts, for every kind of method."""

    def __init__(self, *, is_sync: bool) -> None:
        async def abort(ignored_request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid signature")

        def abort_sync(ignored_request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid signature")

        self._abort = grpc.unary_unary_rpc_method_handler(abort_sync if is_sync else abort)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if ("signature", "right") in handler_call_details.invocation_metadata:
            return await continuation(handler_call_details)
        return self._abort


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
@pytest.mark.parametrize("is_sync", [True, False])
async def test_an_interceptor_may_end_the_call(cardinality: Any, handler: Any, is_sync: bool) -> None:
    refused = await ask(cardinality, handler, Auth(is_sync=is_sync), signature="wrong")
    assert not refused.messages
    assert refused.trailers == [
        ("grpc-status", "16"),
        ("grpc-message", "Invalid signature"),
        ("request_id", "made"),
    ]
    assert (
        dict((await ask(cardinality, handler, Auth(is_sync=is_sync), signature="right")).trailers)["grpc-status"] == "0"
    )


async def test_a_client_stream_without_a_message_is_refused_by_a_unary_handler(serve: Any) -> None:
    peer = Peer(serve(interceptors=[Auth(is_sync=False)], Get=(CLIENT, client)))
    peer.head("Get")
    peer.end()
    assert (await peer.answered())["grpc-message"] == "the request has no message, and the method takes one"


class Answers(Base):
    """Returns a handler of another kind than the method's."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return self._handler


async def sends_bytes(requests: Any, context: Any) -> Any:
    async for request in requests:
        assert request == Int32Value(value=7).SerializeToString()
        yield StringValue(value="raw").SerializeToString()


def sends_bytes_sync(requests: Any, context: Any) -> Any:
    for request in requests:
        assert request == Int32Value(value=7).SerializeToString()
        yield StringValue(value="raw").SerializeToString()


async def writes(request: Any, context: Any) -> None:
    await context.write(StringValue(value="raw"))


@pytest.mark.parametrize("function", [sends_bytes, sends_bytes_sync])
@pytest.mark.parametrize("cardinality", [UNARY, SERVER, CLIENT, BIDI])
async def test_a_handler_of_another_kind_without_serializers_takes_and_returns_bytes(
    function: Any, cardinality: Any
) -> None:
    answer = await ask(cardinality, bidi, Answers(grpc.stream_stream_rpc_method_handler(function)))
    assert texts(answer) == ["raw"]


async def test_a_streaming_handler_of_an_interceptor_may_write() -> None:
    assert texts(await ask(SERVER, server, Answers(grpc.unary_stream_rpc_method_handler(writes)))) == ["raw"]


async def test_no_handler_is_unimplemented() -> None:
    answer = await ask(UNARY, unary, Answers(None))
    assert answer.trailers[:2] == [
        ("grpc-status", "12"),
        ("grpc-message", "the interceptors have no handler for /t.T/Get"),
    ]


class Renames(Base):
    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        class Details:
            method = handler_call_details.method.replace("Old", "New")
            invocation_metadata = ()

        return await continuation(Details())


async def test_an_interceptor_may_redirect_to_another_method(serve: Any) -> None:
    async def new(request: Int32Value) -> StringValue:
        return StringValue(value="new")

    peer = Peer(serve(interceptors=[Renames()], Old=(UNARY, unary), New=(UNARY, new)))
    peer.call("Old", Int32Value())
    assert texts(await peer.answer()) == ["new"]


class Plain(Base):
    """Wraps with plain functions: one that returns the inner result, and one that does work before."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        threads.clear()

        def wrapper(inner: Any) -> Any:
            def outer(request: Any, context: Any) -> Any:
                threads.append(threading.get_ident())
                return inner(request, context)

            return outer

        return wrap(await continuation(handler_call_details), wrapper, wrapper)


threads: list[int] = []


@pytest.mark.parametrize(("cardinality", "handler"), HANDLERS)
async def test_a_plain_function_of_an_interceptor_runs_in_a_thread(cardinality: Any, handler: Any) -> None:
    answer = await ask(cardinality, handler, Plain())
    assert set(texts(answer)) == {"7 made"}
    assert threads
    assert threads[0] != threading.get_ident()


class Requests(Base):
    """Changes the request messages."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        def wrapper(inner: Any) -> Any:
            async def doubled(requests: Any) -> AsyncIterator[Int32Value]:
                async for request in requests:
                    yield Int32Value(value=request.value * 2)

            def outer(requests: Any, context: Any) -> Any:
                return inner(doubled(requests), context)

            return outer

        return wrap(await continuation(handler_call_details), wrapper, wrapper)


@pytest.mark.parametrize(
    ("cardinality", "handler"), [(CLIENT, client), (CLIENT, client_sync), (BIDI, bidi), (BIDI, bidi_sync)]
)
async def test_an_interceptor_may_change_the_request_stream(cardinality: Any, handler: Any) -> None:
    assert set(texts(await ask(cardinality, handler, Requests()))) == {"14 made"}


class Raises(Base):
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(ValueError("broken"), "13", "ValueError: broken"), (RpcError(grpc.StatusCode.ABORTED, "no"), "10", "no")],
)
async def test_an_exception_of_an_interceptor_ends_the_call(error: Exception, status: str, message: str) -> None:
    answer = await ask(UNARY, unary, Raises(error))
    assert answer.trailers[:2] == [("grpc-status", status), ("grpc-message", message)]


@pytest.mark.parametrize("cardinality", [UNARY, SERVER])
async def test_a_wrong_type_is_named_as_without_interceptors(cardinality: Any) -> None:
    async def wrong(request: Int32Value) -> Int32Value:
        return request

    message = dict((await ask(cardinality, wrong, Metadata())).trailers)["grpc-message"]
    assert "returned a google.protobuf.wrappers_pb2.Int32Value; the proto says" in message


class Compresses(Base):
    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        current_context().set_compression(grpc.Compression.Gzip)
        return await continuation(handler_call_details)


@pytest.mark.parametrize("cardinality", [UNARY, SERVER])
async def test_an_interceptor_may_compress(cardinality: Any) -> None:
    async def long(request: Int32Value) -> StringValue:
        return StringValue(value="x" * 1000)

    async def long_stream(request: Int32Value) -> AsyncIterator[StringValue]:
        yield await long(request)

    handler = long if cardinality is UNARY else long_stream
    answer = await ask(cardinality, handler, Compresses(), grpc__accept__encoding="gzip")
    assert ("grpc-encoding", "gzip") in answer.head
    assert [flag for flag, _ in answer.messages] == [1]


@pytest.mark.parametrize("cardinality", [UNARY, SERVER])
async def test_the_handler_is_cancelled_with_its_call(cardinality: Any) -> None:
    ended: list[str] = []

    async def hang(request: Int32Value) -> StringValue:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        raise AssertionError

    async def hang_stream(request: Int32Value) -> AsyncIterator[StringValue]:
        yield await hang(request)

    handler = hang if cardinality is UNARY else hang_stream
    answer = await ask(cardinality, handler, Logging("a", []), grpc__timeout="20m", request_id="r")
    assert answer.trailers[0] == ("grpc-status", "4")
    assert ended == ["cancelled"]


async def test_a_sync_generator_is_closed_at_a_disconnect(serve: Any) -> None:
    closed = threading.Event()

    def endless(request: Int32Value) -> Iterator[StringValue]:
        try:
            while True:
                yield StringValue()
        finally:
            closed.set()

    server = serve(interceptors=[Plain()], Get=(SERVER, endless))
    peer = Peer(server)
    peer.call("Get", Int32Value())
    while not peer.transport.written:
        await asyncio.sleep(0.001)
    peer.connection.connection_lost(None)
    assert await asyncio.to_thread(closed.wait, 10)
    while server.host.ongoing:
        await asyncio.sleep(0.001)

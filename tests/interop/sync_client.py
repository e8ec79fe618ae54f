"""The interop cases with grpcio's sync API: one method per case."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from interop_pb2 import Empty, SimpleRequest, SimpleResponse, StreamingOutputCallRequest
from interop_pb2_grpc import TestServiceStub

from tests.interop import cases

GZIP = grpc.Compression.Gzip
#: Seconds after which a call that hangs fails its case.
PATIENCE_S = 60


class Requests(Iterator[Any]):
    """A stream of requests that the test adds one by one."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, request: Any) -> None:
        self._queue.put(request)

    def half_close(self) -> None:
        self._queue.put(None)

    def __next__(self) -> Any:
        request = self._queue.get()
        if request is None:
            raise StopIteration
        return request


class SyncClient:
    """A channel, and the cases.

    Args:
        address: Where the ingress listens.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address)
        self.stub = TestServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def empty_unary(self) -> None:
        assert self.stub.EmptyCall(Empty(), timeout=PATIENCE_S) == Empty()

    def large_unary(self) -> None:
        check_large(self.stub.UnaryCall(cases.large(), timeout=PATIENCE_S))

    def client_compressed_unary(self) -> None:
        with pytest.raises(grpc.RpcError) as refused:
            self.stub.UnaryCall(cases.large(expect_compressed=True), timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        check_large(self.stub.UnaryCall(cases.large(expect_compressed=True), compression=GZIP, timeout=PATIENCE_S))
        check_large(self.stub.UnaryCall(cases.large(expect_compressed=False), timeout=PATIENCE_S))

    def server_compressed_unary(self) -> None:
        for compressed in (True, False):
            check_large(self.stub.UnaryCall(cases.large(response_compressed=compressed), timeout=PATIENCE_S))

    def client_streaming(self) -> None:
        uploads = map(cases.upload, cases.UPLOADS)
        response = self.stub.StreamingInputCall(uploads, timeout=PATIENCE_S)
        assert response.aggregated_payload_size == cases.AGGREGATED

    def client_compressed_streaming(self) -> None:
        compressed, plain = cases.COMPRESSED_UPLOADS
        probe = cases.upload(compressed, expect_compressed=True)
        with pytest.raises(grpc.RpcError) as refused:
            self.stub.StreamingInputCall(iter([probe]), timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        uploads = iter([probe, cases.upload(plain, expect_compressed=False)])
        response = self.stub.StreamingInputCall(uploads, compression=GZIP, timeout=PATIENCE_S)
        assert response.aggregated_payload_size == cases.COMPRESSED_AGGREGATED

    def server_streaming(self) -> None:
        responses = self.stub.StreamingOutputCall(cases.download(*cases.DOWNLOADS), timeout=PATIENCE_S)
        assert [len(response.payload.body) for response in responses] == list(cases.DOWNLOADS)

    def server_compressed_streaming(self) -> None:
        responses = self.stub.StreamingOutputCall(cases.compressed_download(), timeout=PATIENCE_S)
        sizes = [len(response.payload.body) for response in responses]
        assert sizes == [size for size, _ in cases.COMPRESSED_DOWNLOADS]

    def ping_pong(self) -> None:
        requests = Requests()
        responses = self.stub.FullDuplexCall(requests, timeout=PATIENCE_S)
        for request in cases.ping_pongs():
            requests.send(request)
            assert len(next(responses).payload.body) == request.response_parameters[0].size
        requests.half_close()
        assert list(responses) == []
        assert responses.code() is grpc.StatusCode.OK

    def half_duplex(self) -> None:
        responses = self.stub.HalfDuplexCall(iter(cases.ping_pongs()), timeout=PATIENCE_S)
        assert [len(response.payload.body) for response in responses] == list(cases.DOWNLOADS)

    def empty_stream(self) -> None:
        responses = self.stub.FullDuplexCall(iter(()), timeout=PATIENCE_S)
        assert list(responses) == []
        assert responses.code() is grpc.StatusCode.OK

    def custom_metadata(self) -> None:
        _, call = self.stub.UnaryCall.with_call(cases.large(), metadata=cases.ECHOED, timeout=PATIENCE_S)
        check_echoed(call)
        request = cases.download(cases.RESPONSE_SIZE, request_size=cases.REQUEST_SIZE)
        stream = self.stub.FullDuplexCall(iter([request]), metadata=cases.ECHOED, timeout=PATIENCE_S)
        assert [len(response.payload.body) for response in stream] == [cases.RESPONSE_SIZE]
        check_echoed(stream)

    def status_code_and_message(self) -> None:
        status = cases.echoed_status(cases.STATUS_MESSAGE)
        with pytest.raises(grpc.RpcError) as unary:
            self.stub.UnaryCall(SimpleRequest(response_status=status), timeout=PATIENCE_S)
        requests = iter([StreamingOutputCallRequest(response_status=status)])
        with pytest.raises(grpc.RpcError) as stream:
            list(self.stub.FullDuplexCall(requests, timeout=PATIENCE_S))
        for error in (unary.value, stream.value):
            assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, cases.STATUS_MESSAGE)

    def special_status_message(self) -> None:
        status = cases.echoed_status(cases.SPECIAL_MESSAGE)
        with pytest.raises(grpc.RpcError) as raised:
            self.stub.UnaryCall(SimpleRequest(response_status=status), timeout=PATIENCE_S)
        assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.UNKNOWN, cases.SPECIAL_MESSAGE)

    def unimplemented_method(self) -> None:
        self._unimplemented(cases.UNIMPLEMENTED_METHOD)

    def unimplemented_service(self) -> None:
        self._unimplemented(cases.UNIMPLEMENTED_SERVICE)

    def _unimplemented(self, path: str) -> None:
        call = self.channel.unary_unary(path, Empty.SerializeToString, Empty.FromString)
        with pytest.raises(grpc.RpcError) as raised:
            call(Empty(), timeout=PATIENCE_S)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def cancel_after_begin(self) -> None:
        call = self.stub.StreamingInputCall.future(Requests(), timeout=PATIENCE_S)
        call.cancel()
        assert call.cancelled()
        assert call.code() is grpc.StatusCode.CANCELLED

    def cancel_after_first_response(self) -> None:
        requests = Requests()
        responses = self.stub.FullDuplexCall(requests, timeout=PATIENCE_S)
        requests.send(cases.ping_pongs()[0])
        assert len(next(responses).payload.body) == cases.DOWNLOADS[0]
        responses.cancel()
        with pytest.raises(grpc.RpcError) as raised:
            next(responses)
        assert raised.value.code() is grpc.StatusCode.CANCELLED
        requests.half_close()

    def timeout_on_sleeping_server(self) -> None:
        requests = Requests()
        requests.send(StreamingOutputCallRequest(payload=cases.payload(27182)))
        with pytest.raises(grpc.RpcError) as raised:
            next(self.stub.FullDuplexCall(requests, timeout=0.001))
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        requests.half_close()

    def concurrent_large_unary(self) -> None:
        request = cases.large()
        calls = [self.stub.UnaryCall.future(request, timeout=PATIENCE_S) for _ in range(cases.CONCURRENT_CALLS)]
        for call in calls:
            check_large(call.result())

    def rpc_soak(self) -> None:
        for _ in range(cases.SOAK_ITERATIONS):
            self.large_unary()

    def channel_soak(self) -> None:
        for _ in range(cases.SOAK_ITERATIONS):
            # Channels with equal arguments would share their connection.
            with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                check_large(TestServiceStub(channel).UnaryCall(cases.large(), timeout=PATIENCE_S))

    def long_lived_channel(self) -> None:
        for _ in range(cases.PAUSES):
            self.large_unary()
            time.sleep(cases.PAUSE_S)


def check_large(response: SimpleResponse) -> None:
    assert response.payload.body == bytes(cases.RESPONSE_SIZE)


def check_echoed(call: Any) -> None:
    assert call.code() is grpc.StatusCode.OK
    assert (cases.INITIAL_KEY, cases.INITIAL_VALUE) in call.initial_metadata()
    assert (cases.TRAILING_KEY, cases.TRAILING_VALUE) in call.trailing_metadata()

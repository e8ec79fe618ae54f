"""The interop cases with grpcio's asyncio API: one method per case."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from interop_pb2 import Empty, SimpleRequest, SimpleResponse, StreamingOutputCallRequest
from interop_pb2_grpc import TestServiceStub

from tests.interop import cases

GZIP = grpc.Compression.Gzip
#: Seconds after which a call that hangs fails its case.
PATIENCE_S = 60


class AioClient:
    """A channel, and the cases.

    Args:
        address: Where the ingress listens.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.stub: Any = TestServiceStub(self.channel)

    async def close(self) -> None:
        await self.channel.close()

    async def empty_unary(self) -> None:
        assert await self.stub.EmptyCall(Empty(), timeout=PATIENCE_S) == Empty()

    async def large_unary(self) -> None:
        check_large(await self.stub.UnaryCall(cases.large(), timeout=PATIENCE_S))

    async def client_compressed_unary(self) -> None:
        with pytest.raises(grpc.RpcError) as refused:
            await self.stub.UnaryCall(cases.large(expect_compressed=True), timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        check_large(
            await self.stub.UnaryCall(cases.large(expect_compressed=True), compression=GZIP, timeout=PATIENCE_S)
        )
        check_large(await self.stub.UnaryCall(cases.large(expect_compressed=False), timeout=PATIENCE_S))

    async def server_compressed_unary(self) -> None:
        for compressed in (True, False):
            check_large(await self.stub.UnaryCall(cases.large(response_compressed=compressed), timeout=PATIENCE_S))

    async def client_streaming(self) -> None:
        call = self.stub.StreamingInputCall(timeout=PATIENCE_S)
        for size in cases.UPLOADS:
            await call.write(cases.upload(size))
        await call.done_writing()
        assert (await call).aggregated_payload_size == cases.AGGREGATED

    async def client_compressed_streaming(self) -> None:
        compressed, plain = cases.COMPRESSED_UPLOADS
        probe = cases.upload(compressed, expect_compressed=True)
        with pytest.raises(grpc.RpcError) as refused:
            await self.stub.StreamingInputCall(iter([probe]), timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        uploads = iter([probe, cases.upload(plain, expect_compressed=False)])
        response = await self.stub.StreamingInputCall(uploads, compression=GZIP, timeout=PATIENCE_S)
        assert response.aggregated_payload_size == cases.COMPRESSED_AGGREGATED

    async def server_streaming(self) -> None:
        responses = self.stub.StreamingOutputCall(cases.download(*cases.DOWNLOADS), timeout=PATIENCE_S)
        assert await sizes(responses) == list(cases.DOWNLOADS)

    async def server_compressed_streaming(self) -> None:
        responses = self.stub.StreamingOutputCall(cases.compressed_download(), timeout=PATIENCE_S)
        assert await sizes(responses) == [size for size, _ in cases.COMPRESSED_DOWNLOADS]

    async def ping_pong(self) -> None:
        call = self.stub.FullDuplexCall(timeout=PATIENCE_S)
        for request in cases.ping_pongs():
            await call.write(request)
            assert len((await call.read()).payload.body) == request.response_parameters[0].size
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    async def half_duplex(self) -> None:
        assert await sizes(self.stub.HalfDuplexCall(iter(cases.ping_pongs()), timeout=PATIENCE_S)) == list(
            cases.DOWNLOADS
        )

    async def empty_stream(self) -> None:
        call = self.stub.FullDuplexCall(timeout=PATIENCE_S)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    async def custom_metadata(self) -> None:
        unary = self.stub.UnaryCall(cases.large(), metadata=cases.ECHOED, timeout=PATIENCE_S)
        check_large(await unary)
        await check_echoed(unary)
        request = cases.download(cases.RESPONSE_SIZE, request_size=cases.REQUEST_SIZE)
        stream = self.stub.FullDuplexCall(iter([request]), metadata=cases.ECHOED, timeout=PATIENCE_S)
        assert await sizes(stream) == [cases.RESPONSE_SIZE]
        await check_echoed(stream)

    async def status_code_and_message(self) -> None:
        status = cases.echoed_status(cases.STATUS_MESSAGE)
        unary = self.stub.UnaryCall(SimpleRequest(response_status=status), timeout=PATIENCE_S)
        requests = iter([StreamingOutputCallRequest(response_status=status)])
        stream = self.stub.FullDuplexCall(requests, timeout=PATIENCE_S)
        for call in (unary, stream):
            assert await call.code() is grpc.StatusCode.UNKNOWN
            assert await call.details() == cases.STATUS_MESSAGE

    async def special_status_message(self) -> None:
        status = cases.echoed_status(cases.SPECIAL_MESSAGE)
        call = self.stub.UnaryCall(SimpleRequest(response_status=status), timeout=PATIENCE_S)
        assert await call.code() is grpc.StatusCode.UNKNOWN
        assert await call.details() == cases.SPECIAL_MESSAGE

    async def unimplemented_method(self) -> None:
        await self._unimplemented(cases.UNIMPLEMENTED_METHOD)

    async def unimplemented_service(self) -> None:
        await self._unimplemented(cases.UNIMPLEMENTED_SERVICE)

    async def _unimplemented(self, path: str) -> None:
        call = self.channel.unary_unary(path, Empty.SerializeToString, Empty.FromString)(Empty(), timeout=PATIENCE_S)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED

    async def cancel_after_begin(self) -> None:
        call = self.stub.StreamingInputCall(timeout=PATIENCE_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await call.code() is grpc.StatusCode.CANCELLED

    async def cancel_after_first_response(self) -> None:
        call = self.stub.FullDuplexCall(timeout=PATIENCE_S)
        await call.write(cases.ping_pongs()[0])
        assert len((await call.read()).payload.body) == cases.DOWNLOADS[0]
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        assert await call.code() is grpc.StatusCode.CANCELLED

    async def timeout_on_sleeping_server(self) -> None:
        # The description says 1 ms. When a deadline passes while grpc.aio writes a message, the client itself ends the
        # call, INTERNAL or DEADLINE_EXCEEDED, whichever of the two it notices first. So the deadline is as short as
        # the time in which this machine writes the request: then the client only waits, and one status is right.
        for exponent in range(15):
            call = self.stub.FullDuplexCall(timeout=0.001 * 2**exponent)
            try:
                await call.write(StreamingOutputCallRequest(payload=cases.payload(27182)))
            except (grpc.RpcError, asyncio.InvalidStateError):
                continue  # the deadline passed before
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return
        raise AssertionError("no request could be written in 16 s")

    async def concurrent_large_unary(self) -> None:
        await asyncio.gather(*(self.large_unary() for _ in range(cases.CONCURRENT_CALLS)))

    async def rpc_soak(self) -> None:
        for _ in range(cases.SOAK_ITERATIONS):
            await self.large_unary()

    async def channel_soak(self) -> None:
        for _ in range(cases.SOAK_ITERATIONS):
            # Channels with equal arguments would share their connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(self.address, options) as channel:
                stub: Any = TestServiceStub(channel)
                check_large(await stub.UnaryCall(cases.large(), timeout=PATIENCE_S))

    async def long_lived_channel(self) -> None:
        for _ in range(cases.PAUSES):
            await self.large_unary()
            await asyncio.sleep(cases.PAUSE_S)


async def sizes(responses: Any) -> list[int]:
    return [len(response.payload.body) async for response in responses]


def check_large(response: SimpleResponse) -> None:
    assert response.payload.body == bytes(cases.RESPONSE_SIZE)


async def check_echoed(call: Any) -> None:
    assert await call.code() is grpc.StatusCode.OK
    assert (cases.INITIAL_KEY, cases.INITIAL_VALUE) in tuple(await call.initial_metadata())
    assert (cases.TRAILING_KEY, cases.TRAILING_VALUE) in tuple(await call.trailing_metadata())

"""The cases of compression, down to the flag of each message, which gRPC's libraries do not show."""

from __future__ import annotations

from interop_pb2 import SimpleResponse, StreamingInputCallResponse, StreamingOutputCallResponse

from tests.interop import cases
from tests.support.raw_client import RawClient, Stream, compressed, frame

SERVICE = "/grpc.testing.TestService"
GZIP = [("grpc-encoding", "gzip")]
ACCEPT_GZIP = [("grpc-accept-encoding", "gzip")]
INVALID_ARGUMENT = 3


def client_compressed_unary(client: RawClient) -> None:
    expected, plain = (cases.large(expect_compressed=expected).SerializeToString() for expected in (True, False))
    assert call(client, "UnaryCall", frame(expected)).status[0] == INVALID_ARGUMENT
    for body in (compressed(expected), frame(plain)):
        check_large(call(client, "UnaryCall", body, GZIP))


def client_compressed_streaming(client: RawClient) -> None:
    sizes = cases.COMPRESSED_UPLOADS
    expected, plain = (
        cases.upload(size, expect_compressed=expected).SerializeToString()
        for size, expected in zip(sizes, (True, False), strict=True)
    )
    assert call(client, "StreamingInputCall", frame(expected)).status[0] == INVALID_ARGUMENT
    stream = call(client, "StreamingInputCall", compressed(expected) + frame(plain), GZIP)
    assert stream.status == (0, b"")
    response = StreamingInputCallResponse.FromString(stream.messages[0])
    assert response.aggregated_payload_size == cases.COMPRESSED_AGGREGATED


def server_compressed_unary(client: RawClient) -> None:
    for wanted in (True, False):
        request = cases.large(response_compressed=wanted).SerializeToString()
        stream = call(client, "UnaryCall", frame(request), ACCEPT_GZIP)
        check_large(stream)
        assert [bool(flag) for flag, _ in stream.frames] == [wanted]


def server_compressed_streaming(client: RawClient) -> None:
    stream = call(client, "StreamingOutputCall", frame(cases.compressed_download().SerializeToString()), ACCEPT_GZIP)
    assert stream.status == (0, b"")
    sizes = [len(StreamingOutputCallResponse.FromString(message).payload.body) for message in stream.messages]
    flags = [bool(flag) for flag, _ in stream.frames]
    assert tuple(zip(sizes, flags, strict=True)) == cases.COMPRESSED_DOWNLOADS


def call(client: RawClient, method: str, body: bytes, headers: list[tuple[str, str]] | None = None) -> Stream:
    stream = client.open(f"{SERVICE}/{method}", headers or ())
    stream.send(body, end=True)
    return stream.finish()


def check_large(stream: Stream) -> None:
    assert stream.status == (0, b"")
    (message,) = stream.messages
    assert SimpleResponse.FromString(message).payload.body == bytes(cases.RESPONSE_SIZE)

"""Requests and messages on the wire in front of Envoy."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue
from inspector_pb2_grpc import InspectorStub

from tests.support.raw_client import RawClient, compressed, frame

INSPECTOR = "/sdk.interop.Inspector"
UNIMPLEMENTED, INTERNAL = 12, 13

HELLO = BytesValue(value=b"hello" * 100).SerializeToString()
LARGE = 100 * 1000 * 1000


def repeat(raw: RawClient, body: bytes, *headers: tuple[str, str], method: str = "Repeat") -> tuple[int, list[bytes]]:
    stream = raw.open(f"{INSPECTOR}/{method}", headers)
    stream.send(body, end=True)
    return stream.finish().status[0], stream.messages


@pytest.mark.parametrize(
    "content_type",
    [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc;charset=utf-8",
        "application/grpc+proto; charset=utf-8",
    ],
)
def test_content_types_of_grpc(raw: RawClient, content_type: str) -> None:
    stream = raw.call(f"{INSPECTOR}/Look", Empty(), content_type=content_type)
    assert stream.status == (0, b"")
    assert stream.first(b"content-type") == [b"application/grpc"]


@pytest.mark.parametrize(
    "content_type",
    ["application/grpc+json", "application/grpcs", "text/plain", "", None],
)
def test_other_content_types_are_refused(raw: RawClient, content_type: str | None) -> None:
    stream = raw.call(f"{INSPECTOR}/Look", Empty(), content_type=content_type)
    assert stream.first(b":status") == [b"415"]
    assert b"application/grpc" in stream.body


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "DELETE"])
def test_other_http_methods_are_refused(raw: RawClient, method: str) -> None:
    assert raw.call(f"{INSPECTOR}/Look", Empty(), method=method).first(b":status") == [b"405"]


def test_a_refused_request_leaves_the_connection_to_the_others(raw: RawClient) -> None:
    waiting = raw.open(f"{INSPECTOR}/Echo")
    waiting.wait(lambda stream: stream.blocks)
    raw.call(f"{INSPECTOR}/Look", Empty(), method="PUT")
    waiting.send(frame(HELLO), end=True)
    assert waiting.finish().messages == [HELLO]


@pytest.mark.parametrize("method", ["Repeat", "Echo", "First"])
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", None), (None, None)],
)
def test_compressed_requests(
    raw: RawClient, method: str, encoding: str | None, compress: Callable[[bytes], bytes] | None
) -> None:
    headers = [("grpc-encoding", encoding)] if encoding else []
    body = frame(compress(HELLO), flag=1) if compress else frame(HELLO)
    assert repeat(raw, body, *headers, method=method) == (0, [HELLO])
    assert repeat(raw, frame(HELLO), *headers, method=method) == (0, [HELLO]), "each message may be compressed or not"


@pytest.mark.parametrize("method", ["Repeat", "Echo"])
@pytest.mark.parametrize("encoding", ["snappy", "br", "GZIP", "gzip, deflate"])
def test_an_unknown_encoding_is_refused_with_those_that_are_known(raw: RawClient, method: str, encoding: str) -> None:
    stream = raw.open(f"{INSPECTOR}/{method}", [("grpc-encoding", encoding)])
    stream.send(frame(HELLO, flag=1), end=True)
    assert stream.finish().status == (UNIMPLEMENTED, f"grpc-encoding {encoding!r} is not supported".encode())
    assert len(stream.blocks) == 1
    assert stream.first(b"grpc-accept-encoding") == [b"identity, deflate, gzip"]


@pytest.mark.parametrize("method", ["Repeat", "Echo"])
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(compressed(HELLO), None, id="compressed without an encoding"),
        pytest.param(compressed(HELLO), "identity", id="compressed with identity"),
        pytest.param(compressed(HELLO), "deflate", id="not what was announced"),
        pytest.param(frame(HELLO, flag=1), "gzip", id="not compressed"),
        pytest.param(frame(gzip.compress(HELLO)[:-9], flag=1), "gzip", id="cut short"),
        pytest.param(frame(HELLO, flag=2), "gzip", id="an unknown flag"),
    ],
)
def test_malformed_messages_are_refused(raw: RawClient, method: str, body: bytes, encoding: str | None) -> None:
    assert repeat(raw, body, *([("grpc-encoding", encoding)] if encoding else []), method=method) == (INTERNAL, [])


@pytest.mark.parametrize("method", ["Repeat", "Echo"])
def test_a_request_that_ends_in_the_middle_of_a_message_is_refused(raw: RawClient, method: str) -> None:
    for length in (1, 4, 5, len(HELLO)):
        assert repeat(raw, frame(HELLO)[:length], method=method) == (INTERNAL, [])


def test_a_second_request_message_of_a_method_that_takes_one_is_refused(raw: RawClient) -> None:
    assert repeat(raw, frame(HELLO) * 2) == (UNIMPLEMENTED, [])


def test_messages_of_no_bytes(raw: RawClient) -> None:
    assert repeat(raw, frame(b"")) == (0, [b""])
    assert repeat(raw, frame(b"") * 1000, method="Echo") == (0, [b""] * 1000)


@pytest.mark.parametrize("method", ["Repeat", "Echo"])
def test_a_message_may_come_byte_by_byte(raw: RawClient, method: str) -> None:
    stream = raw.open(f"{INSPECTOR}/{method}")
    for byte in frame(HELLO):
        stream.send(bytes([byte]))
    stream.send(b"", end=True)
    assert stream.finish().status == (0, b"")
    assert stream.messages == [HELLO]


def test_many_messages_may_come_in_one_frame(raw: RawClient) -> None:
    assert repeat(raw, frame(HELLO) * 30, method="Echo") == (0, [HELLO] * 30)


def test_half_close_comes_with_headers_with_data_or_alone(raw: RawClient) -> None:
    assert raw.open(f"{INSPECTOR}/Echo", end=True).finish().status == (0, b"")
    assert repeat(raw, frame(HELLO), method="Echo") == (0, [HELLO])
    stream = raw.open(f"{INSPECTOR}/Echo")
    stream.send(frame(HELLO))
    stream.wait(lambda stream: stream.messages)
    assert not stream.ended
    stream.send(b"", end=True)
    assert stream.finish().status == (0, b"")


def test_messages_of_100_mb_each_way(inspector: str) -> None:
    message = BytesValue(value=bytes(LARGE))
    with grpc.insecure_channel(inspector, [("grpc.max_receive_message_length", -1)]) as channel:
        stub = InspectorStub(channel)
        assert stub.Repeat(message, timeout=60) == message
        assert list(stub.Echo(iter([message]), timeout=60)) == [message]

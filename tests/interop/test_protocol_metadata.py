"""Metadata on the wire behind Envoy."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from inspector_pb2 import Pair, Seen, Wanted

from tests.support.raw_client import RawClient, frame

INSPECTOR = "/sdk.interop.Inspector"
BLOCKS = ["initial", "trailing"]


def look(raw: RawClient, *headers: tuple[str, str]) -> Seen:
    stream = raw.call(f"{INSPECTOR}/Look", Empty(), headers=headers)
    assert stream.status == (0, b"")
    return Seen.FromString(stream.messages[0])


def seen(raw: RawClient, *headers: tuple[str, str]) -> list[tuple[str, str | bytes]]:
    return [(pair.key, pair.binary if pair.HasField("binary") else pair.text) for pair in look(raw, *headers).metadata]


def test_a_call_without_metadata_has_none(raw: RawClient) -> None:
    assert seen(raw) == []


def test_repeated_keys_and_the_order_arrive(raw: RawClient) -> None:
    headers = [("x-b", "1"), ("x-a", "2"), ("x-b", "3"), ("x-a", "2"), ("x-comma", "a, b,c"), ("x-empty", "")]
    assert seen(raw, *headers) == headers


def test_cookies_are_joined(raw: RawClient) -> None:
    # HTTP/2 splits cookies, which HTTP/1.1 needs in one header:
    # https://www.rfc-editor.org/rfc/rfc9113.html#section-8.2.3
    assert seen(raw, ("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2")) == [("x-a", "1"), ("cookie", "a=1; b=2")]


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("q6ur", [b"\xab\xab\xab"]),
        ("AQ", [b"\1"]),
        ("AQ==", [b"\1"]),
        ("AQI", [b"\1\2"]),
        ("AQI=", [b"\1\2"]),
        ("", [b""]),
        ("AQ,Ag", [b"\1", b"\2"]),
        ("AQ==, Ag==", [b"\1", b"\2"]),
        ("AQ,,Ag", [b"\1", b"", b"\2"]),
        ("+/+/", [b"\xfb\xff\xbf"]),
    ],
)
def test_binary_values_are_decoded(raw: RawClient, sent: str, arrives: list[bytes]) -> None:
    assert seen(raw, ("x-some-bin", sent)) == [("x-some-bin", value) for value in arrives]


def test_repeated_binary_keys_and_their_order_arrive(raw: RawClient) -> None:
    assert seen(raw, ("x-a-bin", "AQ"), ("x-b", "text"), ("x-a-bin", "Ag==")) == [
        ("x-a-bin", b"\1"),
        ("x-b", "text"),
        ("x-a-bin", b"\2"),
    ]


def test_headers_of_the_transport_are_no_metadata(raw: RawClient) -> None:
    headers = [
        ("grpc-timeout", "10S"),
        ("grpc-encoding", "gzip"),
        ("grpc-accept-encoding", "gzip"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-request-id", "mine"),
        ("x-mine", "yes"),
    ]
    assert seen(raw, *headers) == [("x-mine", "yes")]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_a_handler_sends_arrives_and_the_values_of_a_key_in_order(raw: RawClient, block: str) -> None:
    pairs = [
        Pair(key="x-b", text="1"),
        Pair(key="x-a-bin", binary=b"\1"),
        Pair(key="x-b", text="a, b"),
        Pair(key="x-a-bin", binary=b""),
        Pair(key="x-a-bin", binary=bytes(range(256))),
        Pair(key="x-empty", text=""),
    ]
    stream = raw.call(f"{INSPECTOR}/Send", Wanted(**{block: pairs}))
    assert stream.status == (0, b"")
    # The order of different keys is free: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
    got: dict[bytes, list[bytes]] = {}
    for name, value in stream.blocks[BLOCKS.index(block)]:
        if name.startswith(b"x-"):
            got.setdefault(name, []).append(value)
    # Without padding, as the protocol prefers.
    every_byte = (
        b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xN"
        b"Tk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqb"
        b"nJ2en6ChoqOkpaanqKmqq6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp"
        b"6uvs7e7v8PHy8/T19vf4+fr7/P3+/w"
    )
    assert got == {b"x-b": [b"1", b"a, b"], b"x-a-bin": [b"AQ", b"", every_byte], b"x-empty": [b""]}


def test_many_pairs_arrive(raw: RawClient) -> None:
    headers = [(f"x-{i}", "v") for i in range(1000)]
    assert seen(raw, *headers) == headers


@pytest.mark.parametrize("block", BLOCKS)
def test_many_pairs_can_be_sent(raw: RawClient, block: str) -> None:
    stream = raw.call(f"{INSPECTOR}/Send", Wanted(**{block: [Pair(key=f"x-{i}", text="v") for i in range(1000)]}))
    assert stream.status == (0, b"")
    assert sum(name.startswith(b"x-") for name, _ in stream.blocks[BLOCKS.index(block)]) == 1000


def test_a_long_value_arrives_and_one_that_is_too_long_ends_its_own_call_only(raw: RawClient) -> None:
    assert seen(raw, ("x-long", "v" * 50_000)) == [("x-long", "v" * 50_000)]
    other = raw.open(f"{INSPECTOR}/Echo")
    other.wait(lambda stream: stream.blocks)
    code, message = raw.call(f"{INSPECTOR}/Look", Empty(), headers=[("x-long", "v" * 62_000)]).status
    assert code == 8
    assert message.endswith(b"bytes of metadata, more than the limit of 61440 (max_metadata_bytes)")
    refused = raw.open(f"{INSPECTOR}/Look", [("x-long", "v" * 62_000)] * 5)
    refused.wait()
    assert refused.reset is not None
    other.send(b"", end=True)
    assert other.finish().status == (0, b"")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    "pair", [Pair(key="x-long", text="v" * 60_000), Pair(key="x-long-bin", binary=bytes(60_000))], ids=["text", "bin"]
)
def test_a_long_value_can_be_sent(raw: RawClient, block: str, pair: Pair) -> None:
    raw.accept_headers(1 << 20)
    stream = raw.call(f"{INSPECTOR}/Send", Wanted(**{block: [pair]}))
    assert stream.status == (0, b"")
    value = dict(stream.blocks[BLOCKS.index(block)])[pair.key.encode()]
    assert len(value) == (60_000 if pair.text else 80_000)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("count", [1001, 1])
def test_too_much_metadata_is_the_handlers_mistake(raw: RawClient, block: str, count: int) -> None:
    pairs = [Pair(key="x-much", text="v" * (66_000 // count))] * count
    stream = raw.call(f"{INSPECTOR}/Send", Wanted(**{block: pairs}))
    assert stream.status == (0, b"")
    assert "is too much" in StringValue.FromString(stream.messages[0]).value


def test_a_long_request_id_comes_back_with_a_long_message(raw: RawClient) -> None:
    # The limit of an answer is above that of a request: it must not look like the answer of a broken replica.
    raw.accept_headers(1 << 20)
    request_id = "r" * 57_000
    stream = raw.call(f"{INSPECTOR}/Send", Wanted(code=5, details="d" * 6000), headers=[("request_id", request_id)])
    assert stream.status == (5, b"d" * 6000)
    assert stream.last(b"request_id") == [request_id.encode()]


RESERVED = [
    ":path", "connection", "content-length", "content-type", "grpc-encoding", "grpc-message", "grpc-new", "grpc-status",
    "grpc-timeout", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
]  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("key", RESERVED)
def test_reserved_keys_can_not_be_sent(raw: RawClient, key: str, block: str) -> None:
    stream = raw.call(f"{INSPECTOR}/Send", Wanted(**{block: [Pair(key=key, text="1")]}))
    assert stream.status == (0, b"")
    assert repr(key) in StringValue.FromString(stream.messages[0]).value


@pytest.mark.parametrize("options", [{}, {"code": 5}], ids=["OK", "NOT_FOUND"])
def test_the_request_id_is_sent_once_and_is_the_calls(raw: RawClient, options: dict[str, Any]) -> None:
    wanted = Wanted(trailing=[Pair(key="request_id", text="forged")], **options)
    stream = raw.call(f"{INSPECTOR}/Send", wanted, headers=[("request_id", "mine")])
    assert stream.last(b"request_id") == [b"mine"]


def test_initial_metadata_arrives_before_any_message(raw: RawClient) -> None:
    stream = raw.open(f"{INSPECTOR}/Echo")
    stream.wait(lambda stream: stream.blocks)
    assert stream.first(b"x-early") == [b"yes"]
    assert (stream.body, stream.ended) == (b"", False)
    stream.send(frame(BytesValue(value=b"now").SerializeToString()), end=True)
    assert stream.finish().status == (0, b"")
    assert stream.messages == [BytesValue(value=b"now").SerializeToString()]


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("1H", 3600), ("2M", 120), ("30S", 30), ("00000030S", 30), ("30000m", 30), ("30000000u", 30)],
)
def test_the_handler_sees_a_timeout_in_every_unit(raw: RawClient, timeout: str, seconds: float) -> None:
    assert look(raw, ("grpc-timeout", timeout)).time_remaining == pytest.approx(seconds, abs=10)


def test_the_longest_timeout_in_nanoseconds(raw: RawClient) -> None:
    # Too short for a certain answer on a busy machine; either status shows that it was parsed.
    stream = raw.call(f"{INSPECTOR}/Look", Empty(), headers=[("grpc-timeout", "99999999n")])
    code, _ = stream.status
    assert code == 4 or 0 < Seen.FromString(stream.messages[0]).time_remaining < 0.1


def test_a_call_without_a_timeout_has_no_deadline(raw: RawClient) -> None:
    assert not look(raw).HasField("time_remaining")


@pytest.mark.parametrize("timeout", ["", "5", "S", "1s", "-1S", "+1S", "1.5S", "1 S", "123456789S", "1SS", "0x1S"])
def test_a_malformed_timeout_is_refused(raw: RawClient, timeout: str) -> None:
    stream = raw.call(f"{INSPECTOR}/Look", Empty(), headers=[("grpc-timeout", timeout)])
    assert stream.status == (13, f"malformed grpc-timeout {timeout!r}".encode())

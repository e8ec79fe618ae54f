from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk.wire.frames import FrameError, FrameReader, only_message, pack_prefix

MAX = 1000


def frame(message: bytes, flag: int = 0) -> bytes:
    return pack_prefix(flag, len(message)) + message


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_messages_come_out_however_the_bytes_are_split(messages: list[bytes], data: st.DataObject) -> None:
    body = b"".join(map(frame, messages))
    reader = FrameReader(MAX)
    got = []
    while body:
        size = data.draw(st.integers(1, len(body)))
        got += reader.feed(body[:size])
        body = body[size:]
    assert got == messages
    assert reader.buffered == 0


def test_an_incomplete_message_is_held() -> None:
    reader = FrameReader(MAX)
    assert reader.feed(frame(b"abc")[:-1]) == []
    assert reader.buffered == 7
    assert reader.feed(b"c") == [b"abc"]


def test_a_long_message_is_refused_before_it_is_there() -> None:
    with pytest.raises(FrameError, match=r"1001 bytes is longer than the limit of 1000") as raised:
        FrameReader(MAX).feed(pack_prefix(0, 1001))
    assert raised.value.code == 8


@pytest.mark.parametrize(
    ("encoding", "compressed"), [(b"gzip", gzip.compress(b"x" * 500)), (b"deflate", zlib.compress(b"x" * 500))]
)
def test_compressed_messages(encoding: bytes, compressed: bytes) -> None:
    assert FrameReader(MAX, encoding).feed(frame(compressed, 1)) == [b"x" * 500]
    assert only_message(frame(compressed, 1), MAX, encoding) == b"x" * 500


@pytest.mark.parametrize(
    ("flag", "message", "encoding", "code", "says"),
    [
        (1, b"x", b"identity", 13, "grpc-encoding 'identity'"),
        (2, b"x", b"gzip", 13, "flag 2"),
        (1, b"not gzip", b"gzip", 13, "not valid gzip"),
        (1, gzip.compress(b"x" * 50)[:-9], b"gzip", 13, "ends too early"),
        (1, gzip.compress(b"x" * 5000), b"gzip", 8, "longer than the limit"),
    ],
)
def test_wrong_compression(flag: int, message: bytes, encoding: bytes, code: int, says: str) -> None:
    with pytest.raises(FrameError, match=says) as raised:
        only_message(frame(message, flag), MAX, encoding)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no message"),
        (b"\0\0", "before its message was complete"),
        (frame(b"abc")[:-1], "before its message was complete"),
        (frame(b"abc") + frame(b"d"), "more than one message"),
    ],
)
def test_a_body_that_is_not_one_message(body: bytes, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        only_message(body, MAX, b"identity")

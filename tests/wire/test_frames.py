from __future__ import annotations

import gzip
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk._wire.frames import (
    LARGE,
    FlaggedMessage,
    FrameError,
    FrameReader,
    decompress,
    extend_body,
    pack_prefix,
    single_message,
)

MAX = 1000
Cuts = st.lists(st.integers(0, 400), max_size=20)


def frame(message: bytes, flag: int = 0) -> bytes:
    return pack_prefix(flag, len(message)) + message


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, *(cut % (len(body) + 1) for cut in cuts), len(body)})
    return [body[start:stop] for start, stop in pairwise(places)]


def read(reader: FrameReader, pieces: list[bytes]) -> tuple[list[bytes | tuple[int, bytes]], str | None]:
    """Return the messages that a reader cuts from a whole body, and the error behind them."""
    got: list[bytes | tuple[int, bytes]] = [
        (message.flag, bytes(message.data)) if isinstance(message, FlaggedMessage) else bytes(message)
        for piece in pieces
        for message in reader.feed(piece)
    ]
    reader.end()
    return got, reader.error and str(reader.error)


@given(st.lists(st.binary(max_size=50), max_size=8), Cuts)
def test_messages_do_not_depend_on_the_split(messages: list[bytes], cuts: list[int]) -> None:
    assert read(FrameReader(MAX), split(b"".join(map(frame, messages)), cuts)) == (messages, None)


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=30)), max_size=6), st.binary(max_size=40), Cuts)
def test_errors_do_not_depend_on_the_split(messages: list[tuple[int, bytes]], junk: bytes, cuts: list[int]) -> None:
    body = b"".join(frame(message, flag) for flag, message in messages) + junk
    whole = read(FrameReader(30), [body])
    assert read(FrameReader(30), split(body, cuts)) == whole
    assert whole[0][: len(messages)] == [(flag, message) if flag else message for flag, message in messages]


@given(st.integers(0, LARGE * 2), st.integers(0, LARGE * 2), st.lists(st.integers(0, LARGE * 5), max_size=6))
def test_long_messages_do_not_depend_on_the_split(first: int, second: int, cuts: list[int]) -> None:
    messages = [b"a" * first, b"b" * second, b"c"]
    assert read(FrameReader(LARGE * 2), split(b"".join(map(frame, messages)), cuts)) == (messages, None)


def test_an_incomplete_message_is_held() -> None:
    reader = FrameReader(MAX)
    assert reader.feed(frame(b"abc")[:-1]) == []
    assert reader.feed(b"c") == [b"abc"]
    reader.end()
    assert reader.error is None


def test_an_incomplete_message_is_an_error_at_the_end() -> None:
    messages, error = read(FrameReader(MAX), [frame(b"abc") + frame(b"abc")[:-1]])
    assert (messages, error) == ([b"abc"], "the request ended before its message was complete")


def test_a_long_message_is_refused_at_its_prefix_and_after_those_before_it() -> None:
    reader = FrameReader(MAX)
    assert reader.feed(frame(b"abc") + pack_prefix(0, 1001)) == [b"abc"]
    assert reader.error is not None
    assert (reader.error.code, str(reader.error)) == (
        8,
        "request message of 1001 bytes is longer than the limit of 1000 (max_receive_message_length)",
    )


def test_nothing_is_held_after_an_error() -> None:
    reader = FrameReader(MAX)
    reader.feed(pack_prefix(0, 1001))
    tracemalloc.start()
    for _ in range(100):
        assert reader.feed(b"x" * 10_000) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20_000


@pytest.mark.parametrize("size", [10, LARGE, 3 << 20])
def test_a_long_message_is_held_once(size: int) -> None:
    body, reader = frame(b"x" * size), FrameReader(size)
    pieces = split(body, list(range(0, len(body), 100_000)))
    tracemalloc.start()
    try:
        got = [message for piece in pieces for message in reader.feed(piece)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(map(bytes, got)) == [b"x" * size]  # type: ignore[arg-type]  # none has flags
    assert peak < size * 1.2 + 10_000  # a bytearray grows by an eighth


@pytest.mark.parametrize(
    ("encoding", "compressed"), [(b"gzip", gzip.compress(b"x" * 500, mtime=0)), (b"deflate", zlib.compress(b"x" * 500))]
)
def test_compressed_messages(encoding: bytes, compressed: bytes) -> None:
    reader = FrameReader(MAX, encoding)
    (message,) = reader.feed(frame(compressed, 1))
    assert isinstance(message, FlaggedMessage)
    assert reader.decompress(message) == b"x" * 500
    assert single_message(frame(compressed, 1), MAX, encoding) == b"x" * 500


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "deflate"]), st.integers(1, 9))
def test_compressed_messages_round_trip(plain: bytes, encoding: str, level: int) -> None:
    compressed = gzip.compress(plain, level) if encoding == "gzip" else zlib.compress(plain, level)
    if len(plain) <= MAX:
        assert decompress(1, compressed, encoding.encode(), MAX) == plain
    else:
        with pytest.raises(FrameError, match="longer than the limit"):
            decompress(1, compressed, encoding.encode(), MAX)


@given(st.binary(max_size=100), st.integers(1, 255), st.sampled_from([b"gzip", b"deflate", b"identity", b"br"]))
def test_malformed_compression_is_refused_with_a_status(data: bytes, flag: int, encoding: bytes) -> None:
    refused = None
    try:
        decompress(flag, data, encoding, MAX)
    except FrameError as error:  # any other exception fails the test
        refused = error.code
    assert refused in ((8, 13, None) if flag == 1 and encoding in (b"gzip", b"deflate") else (13,))


def test_a_decompression_bomb_costs_no_more_than_the_limit() -> None:
    bomb = frame(gzip.compress(b"x" * (16 << 20)), 1)
    limit = 1 << 20
    reader = FrameReader(limit, b"gzip")
    tracemalloc.start()
    try:
        messages = reader.feed(bomb * 4)
        for message in messages:
            with pytest.raises(FrameError, match="longer than the limit"):
                reader.decompress(message)  # type: ignore[arg-type]  # all have flags
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(messages) == 4
    assert peak < limit * 2.5 + 10 * len(bomb)


@pytest.mark.parametrize(
    ("flag", "message", "encoding", "code", "says"),
    [
        (1, b"x", b"identity", 13, "with the encoding 'identity'"),
        (2, b"x", b"gzip", 13, "flag 2"),
        (1, b"not gzip", b"gzip", 13, "not valid gzip"),
        (1, gzip.compress(b"x" * 50, mtime=0)[:-9], b"gzip", 13, "ends too early"),
        (1, gzip.compress(b"x", mtime=0) + b"y", b"gzip", 13, "more follows its end"),
        (1, zlib.compress(b"x") * 2, b"deflate", 13, "more follows its end"),
        (1, gzip.compress(b"x" * 5000, mtime=0), b"gzip", 8, "longer than the limit"),
    ],
)
def test_wrong_compression(flag: int, message: bytes, encoding: bytes, code: int, says: str) -> None:
    with pytest.raises(FrameError, match=says) as raised:
        single_message(frame(message, flag), MAX, encoding)
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
        single_message(body, MAX, b"identity")


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [(pack_prefix(0, 1001), 8, "1001 bytes"), (frame(b"abc") + b"d", 12, "more than one message")],
)
def test_a_malformed_body_is_refused_at_once(body: bytes, code: int, says: str) -> None:
    for cut in range(1, len(body)):
        held: bytes | bytearray = body[:cut]
        with pytest.raises(FrameError, match=says) as raised:
            extend_body(held, body[cut:], MAX)
        assert raised.value.code == code


@given(st.binary(max_size=300), Cuts)
def test_a_single_message_does_not_depend_on_the_split(body: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> bytes | str:
        held: bytes | bytearray = b""
        try:
            for piece in pieces:
                held = extend_body(held, piece, MAX) if held else piece
            return bytes(single_message(held, MAX, b"identity"))
        except FrameError as error:
            return str(error)

    for whole in (body, frame(body), frame(body)[:-1], frame(body) + b"x"):
        assert outcome(split(whole, cuts)) == outcome([whole])

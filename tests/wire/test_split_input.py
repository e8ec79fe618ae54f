"""Requests do not depend on how TCP splits their bytes; metadata arrives unchanged."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdk._wire import metadata as md
from sdk._wire import steps
from tests.support.wire_rig import FakeTransport
from tests.wire import fuzzing

MADE = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Cuts = st.lists(st.integers(0, 2000), max_size=12)


@pytest.fixture(scope="module", autouse=True)
def frozen_clock() -> Iterator[None]:
    """The time of the server: the load of the machine must not decide which messages travel together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "monotonic", lambda: 0.0)
        yield


async def outcome(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return the response to one request, and True if the server closes."""
    fuzzer = fuzzing.Fuzzer()
    transport = FakeTransport()
    connection = fuzzer.server.new_connection()
    connection.connection_made(transport)  # type: ignore[arg-type]
    for piece in pieces:
        connection.data_received(piece)
    for _ in range(60):
        await asyncio.sleep(0)
    transport.closed = True
    connection.connection_lost(None)
    for _ in range(10):
        await asyncio.sleep(0)
    # Without the client's request id the server makes one: another each time.
    return MADE.sub(b"m" * 36, transport.written), transport.ended


def well_answered(written: bytes) -> list[bool]:
    return [fuzzing.is_ok(trailers) for _, trailers in fuzzing.split_responses(written)]


@settings(max_examples=3 * settings.default.max_examples)
@given(st.integers(0, 1 << 32), st.integers(0, 3), Cuts)
async def test_the_response_does_not_depend_on_the_split(seed: int, mutations: int, cuts: list[int]) -> None:
    rng = fuzzing.Chance(seed)
    data = fuzzing.request(rng, 1)
    for _ in range(mutations):
        data = fuzzing.mutate(rng, data, fuzzing.request)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[start:stop] for start, stop in zip(places, places[1:])]  # noqa: B905, RUF007  # as in fuzzing

    split, whole = await outcome(pieces), await outcome([data])
    if not mutations:
        assert split == whole
    # Of two errors, the response may name the one that came first.
    assert (split[1], well_answered(split[0])) == (whole[1], well_answered(whole[0]))


@given(st.binary(max_size=12))
def test_a_timeout_is_a_number_or_malformed(value: bytes) -> None:
    seconds = md.parse_timeout(value)
    assert seconds is None or 0 <= seconds < 99_999_999 * 3600 + 1


@pytest.mark.parametrize(("unit", "seconds"), [("H", 3600), ("M", 60), ("S", 1), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9)])
@given(number=st.integers(0, 99_999_999))
def test_a_timeout_of_any_length_is_read(unit: str, seconds: float, number: int) -> None:
    assert md.parse_timeout(f"{number}{unit}".encode()) == pytest.approx(number * seconds)


@given(st.binary(max_size=50))
def test_malformed_binary_metadata_never_fails(value: bytes) -> None:
    assert isinstance(md.decode_binary(value), bytes)


Keys = st.from_regex(r"x[0-9a-z_.-]{0,8}", fullmatch=True).filter(lambda key: not key.endswith("-bin"))
Pairs = st.one_of(
    st.tuples(Keys, st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)),
    st.tuples(Keys.map(lambda key: key + "-bin"), st.binary(max_size=20)),
)


@given(st.lists(Pairs, max_size=6))
def test_metadata_arrives_as_it_was_sent(pairs: list[tuple[str, str | bytes]]) -> None:
    lines = md.encode(md.check(pairs)).split(b"\r\n")
    headers = [(name, value) for line in lines if line for name, _, value in [line.partition(b": ")]]
    # HTTP has no spaces at the ends of a value.
    assert list(md.from_headers(headers)) == [(k, v.strip() if isinstance(v, str) else v) for k, v in pairs]


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300), st.integers(40, 2000))
def test_a_long_message_keeps_its_ends(text: str, limit: int) -> None:
    encoded = md.fit_message(text, limit)
    assert len(encoded) <= limit
    first, mark, last = unquote_to_bytes(encoded).decode().partition("\n… cut …\n")
    if not mark:
        assert first == text
    else:
        assert text.startswith(first)
        assert text.endswith(last)
        assert len(encoded) > limit - 24  # at most one character is lost at each cut

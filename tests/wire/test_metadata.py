from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk._wire import metadata as md


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9), (b"99999999m", 99999.999)],
)
def test_timeouts_in_every_unit(value: bytes, seconds: float) -> None:
    assert md.parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc+proto ; charset=utf-8", True),
        (b"application/grpc+json", False),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcs", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_content_types(content_type: bytes, is_grpc: bool) -> None:
    assert md.is_grpc(content_type) is is_grpc


@pytest.mark.parametrize("metadata", [[("k", "v" * (64 << 10))], [("k-bin", bytes(40 << 10))] * 2, [("k", "v")] * 1001])
def test_too_much_metadata_is_refused(metadata: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(ValueError, match="is too much: at most 65536 bytes in 1000 pairs"):
        md.check(metadata)


def test_metadata_up_to_the_limit_is_accepted() -> None:
    assert len(md.check([("k", "v" * 60)] * 1000)) == 1000


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"1s", b"-1S", b"123456789S", b"1.5S"])
def test_malformed_timeouts(value: bytes) -> None:
    assert md.parse_timeout(value) is None


@given(st.text() | st.text(alphabet=" a%\n"))
def test_messages_are_percent_encoded(text: str) -> None:
    encoded = md.encode_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote_to_bytes(encoded) == text.encode("utf-8", "replace")
    assert encoded == encoded.strip(), "HTTP would drop spaces around it"


def test_spaces_around_a_message_are_encoded() -> None:
    assert [md.encode_message(text) for text in (" ", "  a b  ", "a")] == [b"%20", b"%20 a b %20", b"a"]


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1), st.integers(40, 400))
def test_a_long_message_loses_its_middle_and_stays_text(text: str, limit: int) -> None:
    encoded = md.fit_message(text * 20, limit)
    assert len(encoded) <= limit
    unquote_to_bytes(encoded).decode("utf-8")


def test_a_long_message_is_cut_in_the_middle() -> None:
    text = "first line\n" + "frame\n" * 2000 + "ValueError: ü at the end"
    cut = unquote_to_bytes(md.fit_message(text, 1000)).decode()
    assert cut.startswith("first line\nframe\n")
    assert cut.endswith("ValueError: ü at the end")
    assert "… cut …" in cut


def test_client_metadata_keeps_order_and_repeats_and_leaves_out_the_transport() -> None:
    headers = [
        (b"host", b"x"),
        (b"content-type", b"application/grpc"),
        (b"a", b"1"),
        (b"b-bin", b"AAE,/w"),
        (b"a", b"2"),
        (b"x-request-id", b"id"),
        (b"x-forwarded-for", b"1.2.3.4"),
    ]
    assert md.from_headers(headers) == (("a", "1"), ("b-bin", b"\0\1"), ("b-bin", b"\xff"), ("a", "2"))


def test_sent_metadata() -> None:
    assert md.encode(md.check([("a", "1"), ("b-bin", b"\0\1"), ("request_id", "mine")])) == b"a: 1\r\nb-bin: AAE\r\n"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("A", "1", "lower-case"),
        ("a b", "1", "not allowed"),
        ("grpc-status", "0", "reserved"),
        ("a", "ü", "printable ASCII"),
        ("a", "x\r\ny", "printable ASCII"),
        ("a", b"x", "printable ASCII"),
        ("a-bin", "x", "must be bytes"),
    ],
)
def test_metadata_that_can_not_be_sent(key: str, value: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        md.check([(key, value)])


def test_exceptions() -> None:
    try:
        raise ValueError("wrong")
    except ValueError as caught:
        error = caught
    assert "test_metadata.py" in md.describe_exception(error, "traceback")
    assert md.describe_exception(error, "message") == "ValueError: wrong"
    assert md.describe_exception(error, "none") == "Internal error."

"""The Connect protocol, rule by rule: https://connectrpc.com/docs/protocol. The endings are in the protocol table."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import Any
from urllib.parse import quote

import pytest

import sdk.testing
from tests.web.http_client import Answer, ask
from tests.web.protocol_forms import COMPRESSED, CONNECT_END, connect_stream, envelope, envelopes

SAY, LOOK, REPEAT, COLLECT = (f"/sdk.web.Chat/{name}" for name in ("Say", "Look", "Repeat", "Collect"))
STREAM = {"content-type": "application/connect+json", "connect-protocol-version": "1"}
PROTO_STREAM = {"content-type": "application/connect+proto"}


def said(**fields: Any) -> bytes:
    from chat_pb2 import Said

    data: bytes = Said(**fields).SerializeToString()
    return data


def heard(data: bytes) -> Any:
    from chat_pb2 import Heard

    return Heard.FromString(data)


def end_of(answer: Answer) -> Any:
    """Return the end-stream message of an answer, which is the last envelope."""
    *messages, (flags, data) = envelopes(answer.body)
    assert flags & CONNECT_END
    assert not any(flags & CONNECT_END for flags, _ in messages)
    return json.loads(data)


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"],
)
def test_parameters_of_a_content_type_change_nothing(server: sdk.testing.Server, kind: str) -> None:
    assert ask(server, SAY, {"text": "a"}, {"content-type": kind}).json["text"] == "a"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (SAY, "application/xml"),
        (SAY, "application/proto+json"),
        (SAY, "application/connect+xml"),
        (SAY, "application/connect+proto"),
        (REPEAT, "application/proto"),
        (REPEAT, "application/connect+xml"),
        (COLLECT, "application/proto"),
        (COLLECT, "text/plain"),
    ],
)
def test_an_unknown_codec_is_415(server: sdk.testing.Server, path: str, kind: str) -> None:
    answer = ask(server, path, b"{}", {"content-type": kind})
    assert answer.status == 415
    assert kind in answer.json["message"] or "is unary" in answer.json["message"]


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_verb_is_405(server: sdk.testing.Server, verb: str) -> None:
    answer = ask(server, SAY, b"{}", verb=verb)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    stream = ask(server, REPEAT, envelope(b"{}"), STREAM, verb=verb)
    assert (stream.status, stream.headers["allow"]) == (405, "POST")
    looked = ask(server, LOOK, b"{}", verb=verb) if verb != "GET" else None
    if looked is not None:
        assert (looked.status, looked.headers["allow"]) == (405, "GET, POST")


def test_an_empty_body_is_the_default_message_in_binary(server: sdk.testing.Server) -> None:
    answer = ask(server, SAY, b"", {"content-type": "application/proto"})
    assert (answer.status, heard(answer.body).text) == (200, "")


def test_a_method_that_does_not_exist_is_404(server: sdk.testing.Server) -> None:
    for kind in ("application/json", "application/proto"):
        answer = ask(server, "/sdk.web.Chat/Nothing", b"", {"content-type": kind})
        assert (answer.status, answer.json["code"]) == (404, "unimplemented")
    for kind in ("application/connect+json", "application/connect+proto"):
        answer = ask(server, "/sdk.web.Chat/Nothing", envelope(b""), {"content-type": kind})
        assert (answer.status, end_of(answer)["error"]["code"]) == (200, "unimplemented")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_a_compressed_request(server: sdk.testing.Server, encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding]
    answer = ask(server, SAY, pack(b'{"text": "a"}'), {"content-encoding": encoding})
    assert (answer.status, answer.json["text"]) == (200, "a")
    stream = {**STREAM, "connect-content-encoding": encoding}
    flags = COMPRESSED if encoding != "identity" else 0
    # A compressed message and one that is not may come together.
    body = envelope(pack(b'{"text": "a"}'), flags) + envelope(b'{"text": "b"}')
    answer = ask(server, COLLECT, body, stream)
    assert connect_stream("json")(answer, None).messages == [{"text": "a b", "number": "2"}]


def test_an_unknown_compression_is_unimplemented(server: sdk.testing.Server) -> None:
    answer = ask(server, SAY, {}, {"content-encoding": "br"})
    assert (answer.status, answer.json["code"]) == (501, "unimplemented")
    assert "gzip" in answer.json["message"]
    for path in (REPEAT, COLLECT):
        answer = ask(server, path, envelope(b"{}"), {**STREAM, "connect-content-encoding": "br"})
        error = end_of(answer)["error"]
        assert (answer.status, error["code"]) == (200, "unimplemented")
        assert "connect-content-encoding 'br'" in error["message"]
        assert "gzip" in error["message"]


def test_data_that_is_not_of_its_compression_is_an_error(server: sdk.testing.Server) -> None:
    answer = ask(server, SAY, b"{}", {"content-encoding": "gzip"})
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")
    answer = ask(server, COLLECT, envelope(b"{}", COMPRESSED), {**STREAM, "connect-content-encoding": "gzip"})
    assert end_of(answer)["error"]["code"] == "invalid_argument"


def test_a_compressed_message_without_a_compression_is_an_internal_error(server: sdk.testing.Server) -> None:
    for path in (REPEAT, COLLECT):
        answer = ask(server, path, envelope(gzip.compress(b"{}"), COMPRESSED), STREAM)
        assert end_of(answer)["error"]["code"] == "internal"


@pytest.mark.parametrize(
    ("timeout", "is_valid"),
    [
        ("9999999999", True),
        ("0000099999", True),
        ("10000000000", False),
        ("00000099999", False),
        ("0", False),
        ("0000", False),
        ("-1", False),
        ("+1", False),
        ("1.5", False),
        ("1e5", False),
        ("soon", False),
        ("5000, 6000", False),
        ("", False),
    ],
)
def test_a_timeout_is_positive_and_has_at_most_ten_digits(
    server: sdk.testing.Server, timeout: str, is_valid: bool
) -> None:
    header = {"connect-timeout-ms": timeout or " "}
    unary, stream = ask(server, SAY, {}, header), ask(server, REPEAT, envelope(b"{}"), {**STREAM, **header})
    assert (unary.status, stream.status) == (200 if is_valid else 400, 200)
    if is_valid:
        assert "error" not in end_of(stream)
    for error in () if is_valid else (unary.json, end_of(stream)["error"]):
        assert error["code"] == "invalid_argument"
        assert error["message"] == f"connect-timeout-ms must be from 1 to 9999999999 milliseconds, not {timeout!r}"


def test_a_stream_s_timeout_is_in_its_end(server: sdk.testing.Server) -> None:
    answer = ask(server, REPEAT, envelope(b'{"times":2,"waits":true}'), {**STREAM, "connect-timeout-ms": "300"})
    outcome = connect_stream("json")(answer, None)
    assert (len(outcome.messages), outcome.code) == (2, 4)


@pytest.mark.parametrize("number", [0, 2])
def test_a_method_that_takes_one_message_refuses_other_numbers(server: sdk.testing.Server, number: int) -> None:
    answer = ask(server, REPEAT, envelope(b"{}") * number, STREAM)
    assert answer.status == 200
    assert end_of(answer)["error"]["code"] == "unimplemented"


def test_an_envelope_that_is_cut_is_an_error(server: sdk.testing.Server) -> None:
    for path in (REPEAT, COLLECT):
        answer = ask(server, path, envelope(b'{"text":"a"}')[:-3], STREAM)
        assert end_of(answer)["error"]["code"] == "invalid_argument"


def test_metadata_of_the_protocol_is_not_the_client_s(server: sdk.testing.Server) -> None:
    sent = {"connect-protocol-version": "1", "connect-timeout-ms": "60000", "x-mine": "1"}
    found = ask(server, SAY, {}, sent).json["metadata"]
    assert "x-mine: '1'" in found
    assert not [pair for pair in found if pair.startswith(("connect-", "grpc-", "content-", "accept"))]


def test_repeated_headers_are_one_value_with_commas_or_several(server: sdk.testing.Server) -> None:
    found = ask(server, SAY, {}, {"x-mine": "1, 2"}).json["metadata"]
    assert "x-mine: '1, 2'" in found


# -- responses -------------------------------------------------------------------------------------


def test_binary_metadata_is_base64(server: sdk.testing.Server) -> None:
    answer = ask(server, SAY, {}, {"x-mine-bin": base64.b64encode(b"\1\2\xff").decode()})
    assert "x-mine-bin: b'\\x01\\x02\\xff'" in answer.json["metadata"]
    assert (answer.headers["x-first-bin"], answer.headers["trailer-x-last-bin"]) == ("AQI", "AwQ")


def test_trailing_metadata_of_an_error_are_headers(server: sdk.testing.Server) -> None:
    for kind, body in (("application/json", b'{"code":5}'), ("application/proto", said(code=5))):
        answer = ask(server, SAY, body, {"content-type": kind})
        assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
        assert (answer.headers["trailer-x-last"], answer.headers["x-first"]) == ("2", "1")
        assert "trailer-grpc-status-details-bin" not in answer.headers


def test_metadata_of_a_stream_are_in_its_end(server: sdk.testing.Server) -> None:
    for fields in ('{"times":1}', '{"times":1,"code":5}'):
        answer = ask(server, REPEAT, envelope(fields.encode()), STREAM)
        assert end_of(answer)["metadata"]["x-last"] == ["2"]


def test_the_detail_of_an_error_is_unpadded_base64(server: sdk.testing.Server) -> None:
    from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # it has no types

    (detail,) = ask(server, SAY, {"code": 9, "hasDetail": True}).json["details"]
    assert detail["type"] == "google.rpc.RetryInfo"
    assert "=" not in detail["value"]
    value = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4))
    assert RetryInfo.FromString(value).retry_delay.seconds == 7


def test_an_error_before_the_first_message_of_a_stream_is_in_its_end(server: sdk.testing.Server) -> None:
    answer = ask(server, REPEAT, envelope(b'{"code":7}'), STREAM)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/connect+json")
    assert end_of(answer)["error"]["code"] == "permission_denied"


def test_wrong_headers_of_a_stream_are_answered_in_its_end(server: sdk.testing.Server) -> None:
    for headers in ({"connect-protocol-version": "2"}, {"connect-timeout-ms": "soon"}):
        answer = ask(server, REPEAT, envelope(b"{}"), {**STREAM, **headers})
        assert (answer.status, end_of(answer)["error"]["code"]) == (200, "invalid_argument")


# -- GET -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["json", "proto"])
@pytest.mark.parametrize("is_base64", [False, True])
@pytest.mark.parametrize("compression", ["", "gzip"])
def test_get(server: sdk.testing.Server, encoding: str, is_base64: bool, compression: str) -> None:
    data = b'{"text": "a&b=\xc3\xbc"}' if encoding == "json" else said(text="a&b=ü")
    data = gzip.compress(data) if compression else data
    if is_base64:
        # Clients may pad, or not.
        data = base64.urlsafe_b64encode(data).rstrip(b"=") if compression else base64.urlsafe_b64encode(data)
    query = f"connect=v1&encoding={encoding}&message={quote(data)}"
    query += f"&base64={int(is_base64)}" + (f"&compression={compression}" if compression else "")
    answer = ask(server, f"{LOOK}?{query}", None)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == f"application/{encoding}"
    text = answer.json["text"] if encoding == "json" else heard(answer.body).text
    assert text == "a&b=ü"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("encoding=xml&message=a", 415, "encoding=xml"),
        ("encoding=json&message=%7B", 400, "not JSON"),
        ("encoding=json&message=x!&base64=1", 400, "not base64"),
        ("connect=v2&encoding=json&message=%7B%7D", 400, "connect must be v1"),
        ("encoding=json&message=%7B%7D&compression=br", 501, "br"),
        ("encoding=json&message=", 400, "has no body"),
        ("encoding=json&message=%7B%22code%22:5%7D", 404, "ends with 5"),
        ("encoding=proto&message=%FF", 400, "sdk.web.Said"),
    ],
)
def test_a_get_that_fails(server: sdk.testing.Server, query: str, status: int, text: str) -> None:
    answer = ask(server, f"{LOOK}?{query}", None)
    assert answer.status == status, answer.body
    assert text in answer.json["message"]


def test_a_get_of_a_method_with_side_effects_is_405(server: sdk.testing.Server) -> None:
    answer = ask(server, f"{SAY}?connect=v1&encoding=json&message=%7B%7D", None)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_get_needs_no_header_of_the_protocol(server: sdk.testing.Server) -> None:
    answer = ask(server, f"{LOOK}?encoding=json&message=%7B%7D", None, {"connect-timeout-ms": "60000"})
    assert answer.status == 200

"""``google.api.HttpBody`` in routes: bytes with their content-type; over other protocols a message."""

from __future__ import annotations

import base64
import http.client

import pytest

import sdk.testing
from sdk._wire.frames import pack_prefix
from tests.support.loops import PATIENCE_S
from tests.web.http_client import ask

GRPC_WEB = "application/grpc-web+proto"
BYTES = b"\0\xff\r\n{" + bytes(range(256)) * 400


@pytest.mark.parametrize(
    ("query", "kind"),
    [("?author.name=image/png", "image/png"), ("", "application/octet-stream")],
)
def test_a_response_is_its_bytes(server: sdk.testing.Server, query: str, kind: str) -> None:
    answer = ask(server, f"/v1/files/a{query}", None)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, kind, b"a\0\xff")
    assert answer.headers["call-status"] == "OK"
    assert answer.headers["call-method"] == "/sdk.web.Chat/GetFile"


def test_an_error_is_json(server: sdk.testing.Server) -> None:
    answer = ask(server, "/v1/files/a?code=5", None)
    assert (answer.status, answer.json["code"]) == (404, "not_found")


def test_a_content_type_that_no_header_can_hold_is_an_internal_error(server: sdk.testing.Server) -> None:
    answer = ask(server, "/v1/files/a?author.name=text%0D%0Ax-mine:1", None)
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert "can't be a header" in answer.json["message"]
    assert "x-mine" not in answer.headers


@pytest.mark.parametrize("kind", ["image/png", "application/json", "text/plain; charset=utf-8", "", "multipart/x"])
def test_a_request_is_its_bytes(server: sdk.testing.Server, kind: str) -> None:
    expected = kind or "application/octet-stream"
    for verb, path in (("POST", "/v1/echo"), ("PUT", "/v1/files/a")):
        answer = ask(server, path, BYTES, {"content-type": kind}, verb=verb)
        assert (answer.status, answer.headers["content-type"]) == (200, expected), answer.body[:300]
        assert answer.body == BYTES


def test_a_request_field_is_bytes_beside_the_variables_of_the_path(server: sdk.testing.Server) -> None:
    answer = ask(server, "/v1/uploads/a", b"\xff", {"content-type": "image/png"})
    assert answer.json == {"name": "a", "file": {"contentType": "image/png", "data": "/w=="}}
    answer = ask(server, "/v1/uploads/a", b"", {"content-type": ""})
    assert answer.json == {"name": "a"}


def test_a_stream_is_one_body_of_the_first_content_type(server: sdk.testing.Server) -> None:
    answer = ask(server, "/v1/downloads/ab?times=3", None, {"accept": "text/event-stream"})
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/x-0", b"ababab")
    assert ask(server, "/v1/downloads/ab", None).body == b""
    assert ask(server, "/v1/downloads/ab?code=5", None).status == 404


def test_a_stream_that_fails_after_its_start_is_cut(server: sdk.testing.Server) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):  # Envoy may drop the last bytes
        ask(server, "/v1/downloads/ab?times=3&code=5", None)
    assert ask(server, "/v1/downloads/ab?times=2", None).body == b"ab"


def test_a_stream_of_requests_is_the_pieces_of_one_body(server: sdk.testing.Server) -> None:
    text = "a\n\nb" * 100_000
    answer = ask(server, "/v1/join", text.encode(), {"content-type": "text/csv"})
    assert answer.json["text"] == text
    assert answer.json["metadata"] == ["text/csv"]
    connection = http.client.HTTPConnection(server.target, timeout=PATIENCE_S)
    connection.request("POST", "/v1/join", b"", {"content-type": "text/csv"})
    assert connection.getresponse().read() == b"{}"
    connection.close()


def test_other_protocols_have_the_message(server: sdk.testing.Server) -> None:
    from google.api.httpbody_pb2 import HttpBody

    message = HttpBody(content_type="image/png", data=BYTES)
    sent = {"contentType": "image/png", "data": base64.b64encode(BYTES).decode()}
    assert ask(server, "/sdk.web.Chat/Echo", sent).json == sent
    answer = ask(server, "/sdk.web.Chat/Echo", message.SerializeToString(), {"content-type": "application/proto"})
    assert (answer.headers["content-type"], HttpBody.FromString(answer.body)) == ("application/proto", message)
    data = message.SerializeToString()
    answer = ask(server, "/sdk.web.Chat/Echo", pack_prefix(0, len(data)) + data, {"content-type": GRPC_WEB})
    assert answer.headers["content-type"] == GRPC_WEB
    assert answer.body.startswith(pack_prefix(0, len(data)) + data)
    with server.channel() as channel:
        assert channel.unary_unary("/sdk.web.Chat/Echo")(data, timeout=PATIENCE_S) == data

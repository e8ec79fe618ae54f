"""JSON over HTTP through a real Envoy: every method, the routes of google.api.http, and wrong requests."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import grpc
import pytest

import sdk.testing
from sdk import grpc_deployment
from sdk._web.http_status import CODES
from tests.web.http_client import Answer, ask

SAY = "/sdk.web.Chat/Say"


@pytest.mark.parametrize("method", ["Say", "SaySync"])
def test_a_unary_method_answers_with_its_message(server: sdk.testing.Server, method: str) -> None:
    answer = ask(server, f"/sdk.web.Chat/{method}", {"text": "hé", "author": {"number": "5"}})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["text"] == "hé"
    assert answer.json["request"]["author"] == {"number": "5"}
    assert answer.headers["call-status"] == "OK"


def test_metadata_goes_both_ways(server: sdk.testing.Server) -> None:
    answer = ask(server, SAY, {}, {"request_id": "r7", "x-mine": "m", "x-mine-bin": "AQI"})
    assert answer.headers["request_id"] == "r7"
    assert answer.headers["x-first"] == "1"
    assert answer.headers["x-first-bin"] == "AQI"
    assert answer.headers["trailer-x-last"] == "2"
    assert answer.headers["trailer-x-last-bin"] == "AwQ"
    metadata = set(answer.json["metadata"])
    assert {"x-mine: 'm'", "x-mine-bin: b'\\x01\\x02'"} <= metadata
    assert not {pair for pair in metadata if pair.startswith(("content", "accept", "x-forwarded", "te:"))}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("method", ["Say", "SaySync", "Repeat", "RepeatSync"])
def test_an_error_has_its_http_status_and_its_details(server: sdk.testing.Server, method: str, code: int) -> None:
    answer = ask(server, f"/sdk.web.Chat/{method}", {"code": code, "hasDetail": True})
    name, status = CODES[code]
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "7"
    assert answer.json == {
        "code": name,
        "message": f"ends with {code} — ü",
        "details": [{"type": "google.rpc.RetryInfo", "value": "CgIIBw", "debug": {"retryDelay": "7s"}}],
    }


def test_a_cache_keeps_the_forms_of_an_answer_apart(server: sdk.testing.Server) -> None:
    from tests.web.chat_app import Chat

    for accept in "text/event-stream", "application/x-ndjson":
        answer = ask(server, "/v1/repeat/x?times=1", None, {"accept": accept})
        assert answer.headers["vary"].startswith("accept,")
    packed = grpc_deployment(compression=grpc.Compression.Gzip)(type("Packed", (Chat,), {}))
    with sdk.testing.serve(packed.bind()) as other:
        look = '/sdk.web.Chat/Look?encoding=json&message={"text":"%s"}' % ("a" * 1000)
        answer = ask(other, look, None, {"accept-encoding": "gzip"})
        assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "accept-encoding")
        assert "content-encoding" not in ask(other, look, None).headers


@pytest.mark.parametrize("method", ["Repeat", "RepeatSync"])
def test_a_stream_has_a_message_on_each_line(server: sdk.testing.Server, method: str) -> None:
    answer = ask(server, f"/sdk.web.Chat/{method}", {"times": 3, "text": "a\nb"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [line["text"] for line in answer.lines] == ["a\nb"] * 3


@pytest.mark.parametrize("method", ["Repeat", "RepeatSync"])
def test_a_stream_that_fails_after_its_start_says_so_in_its_body(server: sdk.testing.Server, method: str) -> None:
    answer = ask(server, f"/sdk.web.Chat/{method}", {"times": 1, "code": 9, "hasDetail": True})
    assert answer.status == 200
    first, last = answer.lines
    assert "text" not in first
    assert last["error"]["code"] == "failed_precondition"
    assert last["error"]["details"][0]["debug"] == {"retryDelay": "7s"}


def test_a_stream_without_messages_is_empty(server: sdk.testing.Server) -> None:
    answer = ask(server, "/sdk.web.Chat/Repeat", {})
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("code", "last"), [(0, "event: end\ndata: {}"), (5, 'event: error\ndata: {"code":"not_found"')]
)
def test_a_stream_of_events_has_an_end(server: sdk.testing.Server, code: int, last: str) -> None:
    answer = ask(server, "/sdk.web.Chat/Repeat", {"times": 2, "code": code}, {"accept": "text/event-stream"})
    assert answer.headers["content-type"] == "text/event-stream"
    *messages, end = answer.body.decode().removesuffix("\n\n").split("\n\n")
    assert [json.loads(each.removeprefix("data: ")).get("number") for each in messages] == [None, "1"]
    assert end.startswith(last)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("TEXT/Event-Stream", "text/event-stream"),
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("text/event-stream;q=0.5", "text/event-stream"),
        ("text/event-stream; q=0.0", "application/x-ndjson"),
        ("application/x-ndjson, text/event-stream;q=0.5", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
    ],
)
def test_a_stream_has_the_form_that_the_client_accepts(server: sdk.testing.Server, accept: str, kind: str) -> None:
    assert ask(server, "/sdk.web.Chat/Repeat", {"times": 1}, {"accept": accept}).headers["content-type"] == kind


def test_a_stream_of_requests_is_a_message_on_each_line(server: sdk.testing.Server) -> None:
    answer = ask(server, "/sdk.web.Chat/Collect", b'{"text":"a"}\n\n{"text":"b"}')
    assert answer.json == {"text": "a b", "number": "2"}
    answer = ask(server, "/sdk.web.Chat/Talk", b'{"text":"a"}\n{"text":"b"}\n{"code":3}\n')
    assert [line.get("text", "error") for line in answer.lines] == ["a", "b", "error"]
    assert ask(server, "/sdk.web.Chat/Collect", b"{}\nnonsense\n").json["code"] == "invalid_argument"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the request has no body: send the sdk.web.Said as JSON, {} if no field is set"),
        (b"{", "the request is not JSON of a sdk.web.Said"),
        (b"[]", "the request is not JSON of a sdk.web.Said"),
        (b'{"txt": "a"}', 'has no field named "txt"'),
        (b'{"text": "a", "text": "b"}', "text"),
        (b'{"times": "many"}', "times"),
        (b'{"mood": "SAD"}', "mood"),
        (b'{"at": "yesterday"}', "at"),
        (b'{"any": {"@type": "type.googleapis.com/google.protobuf.Duration"}}', "the key 'value' is missing"),
        (b'{"text": "\\ud800"}', "text"),
        (b"\xff", "the request is not JSON"),
        (b"null", "it is not an object"),
        (b'{"author":' * 5000, "the request is not JSON"),
    ],
)
def test_a_wrong_body_is_explained(server: sdk.testing.Server, body: bytes, text: str) -> None:
    answer = ask(server, SAY, body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")
    assert text in answer.json["message"]


def test_a_response_that_json_can_t_express_is_an_internal_error(server: sdk.testing.Server) -> None:
    from chat_pb2 import Said

    said = Said()
    said.any.type_url = "type.googleapis.com/nobody.Knows"
    answer = ask(server, SAY, said.SerializeToString(), {"content-type": "application/proto"})
    assert answer.status == 200  # binary clients know the type
    look = f"/sdk.web.Chat/Look?encoding=proto&base64=1&message={quote(b64(said.SerializeToString()))}"
    assert ask(server, look, None).status == 200


def b64(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("path", "verb", "headers", "status", "text"),
    [
        (SAY, "GET", {}, 405, "takes POST, not GET"),
        (SAY, "PUT", {}, 405, "takes POST, not PUT"),
        (SAY, "POST", {"content-type": "text/plain"}, 415, "it is 'text/plain'"),
        (SAY, "POST", {"content-type": ""}, 415, "it is missing"),
        (SAY, "POST", {"content-type": "application/connect+json"}, 415, "is unary"),
        (SAY, "POST", {"content-encoding": "br"}, 501, "content-encoding 'br' is not supported"),
        (SAY, "POST", {"connect-timeout-ms": "soon"}, 400, "connect-timeout-ms must be from 1 to"),
        (SAY, "POST", {"grpc-timeout": "soon"}, 400, "malformed grpc-timeout 'soon'"),
        (SAY, "POST", {"connect-protocol-version": "2"}, 400, "connect-protocol-version must be '1'"),
        ("/sdk.web.Chat/Nothing", "POST", {}, 404, "has no method 'Nothing' of service 'sdk.web.Chat'"),
        ("/v1/say", "DELETE", {}, 405, "/v1/say takes POST, not DELETE"),
        ("/v1/say", "OPTIONS", {}, 405, "/v1/say takes POST, not OPTIONS"),
        (SAY, "TRACE", {}, 405, "takes POST, not TRACE"),
        ("/nothing", "OPTIONS", {}, 404, "has no method 'nothing'"),
    ],
)
def test_a_wrong_request_is_explained(
    server: sdk.testing.Server, path: str, verb: str, headers: dict[str, str], status: int, text: str
) -> None:
    answer = ask(server, path, b"{}", headers, verb=verb)
    assert answer.status == status
    assert text in answer.json["message"]
    assert answer.headers["content-type"] == "application/json"
    if status == 405:
        assert answer.headers["allow"] == "POST"


def test_head_has_the_headers_of_a_wrong_verb(server: sdk.testing.Server) -> None:
    for path, status, allowed in (
        (SAY, 405, "POST"),
        ("/sdk.web.Chat/Look", 405, "GET, POST"),
        ("/v1/fields", 405, "GET, POST"),
        ("/v1/any/x", 405, "DELETE, GET, PATCH, POST, PUT"),
        ("/nothing", 404, None),
    ):
        answer = ask(server, path, None, verb="HEAD")
        assert (answer.status, answer.body, answer.headers.get("allow")) == (status, b"", allowed)
        assert answer.headers["call-status"] == "UNIMPLEMENTED"


def test_a_deadline_and_a_limit_have_their_http_status(server: sdk.testing.Server) -> None:
    answer = ask(server, SAY, {"waits": True}, {"connect-timeout-ms": "50"})
    assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
    answer = ask(server, SAY, {"waits": True}, {"grpc-timeout": "50m"})
    assert answer.status == 504


def test_an_unknown_application_is_not_found(server: sdk.testing.Server) -> None:
    answer = ask(server, SAY, {}, {"application": "nobody"})
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert "Application 'nobody' not found." in answer.json["message"]


# -- google.api.http ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "target", "body", "expected"),
    [
        ("POST", "/v1/say", {"text": "a"}, {"text": "a"}),
        ("PUT", "/v1/authors/%20n/say/x%2Fy", {"number": 3}, {"text": "x/y", "author": {"name": " n", "number": "3"}}),
        ("PUT", "/v1/authors/a/say/x?times=2&isLoud=true", {}, {"times": 2, "isLoud": True}),
        ("PUT", "/v1/authors/a/say/x?tags=a&tags=b&is_loud=true", {}, {"tags": ["a", "b"], "isLoud": True}),
        ("PUT", "/v1/authors/a/say/x?mood=MOOD_GLAD", {}, {"mood": "MOOD_GLAD"}),
        ("PUT", "/v1/authors/a/say/x?at=2026-01-02T03:04:05Z", {}, {"at": "2026-01-02T03:04:05Z"}),
    ],
)  # fmt: skip
def test_a_route_fills_the_message(
    server: sdk.testing.Server, verb: str, target: str, body: Any, expected: dict[str, Any]
) -> None:
    answer = ask(server, target, body, verb=verb)
    assert answer.status == 200, answer.json
    request = answer.json["request"]
    assert {key: request[key] for key in expected} == expected
    assert answer.headers["call-method"] == SAY


def test_a_route_can_answer_with_one_field(server: sdk.testing.Server) -> None:
    answer = ask(server, "/v1/heard/rooms/1/notes/a/b%2Fc", None)
    assert (answer.status, answer.json) == (200, "rooms/1/notes/a/b%2Fc")


AT, TAKES = "2026-01-02T03:04:05Z", "1.500s"
ONE = f"/v1/one/{AT.replace(':', '%3A')}/1.5s/a_string,inner.aBool/7/-_8=/COLOR_RED/true/NaN"
VALUES = {"at": AT, "takes": TAKES, "mask": "aString,inner.aBool", "int64Value": "7", "someBytes": "+/8="}


@pytest.mark.parametrize(
    ("verb", "target", "body", "expected"),
    [
        ("GET", ONE, None, {**VALUES, "color": "COLOR_RED", "aBool": True, "aDouble": "NaN"}),
        ("GET", f"/v1/fields?at={AT}&takes=1.5s&mask=a_string,inner.a_bool&int64_value=7&someBytes=-_8", None, VALUES),
        ("GET", "/v1/fields?an_int64=9007199254740993&color=-3&colors=1&colors=CRIMSON_", None, None),
        ("GET", "/v1/fields?color=-3&colors=1&colors=7", None, {"color": "COLOR_DARK", "colors": ["COLOR_RED", 7]}),
        ("GET", "/v1/fields?inner.inner.a_string=a+b%2B", None, {"inner": {"inner": {"aString": "a b+"}}}),
        ("GET", "/v1/fields?maybe_string=&string_value=", None, {"maybeString": "", "stringValue": ""}),
        ("GET", "/v1/fields?a_string=%ff", None, None),
        ("GET", "/v1/any/%ff", None, None),
        ("POST", "/v1/ops/ops/1", {}, {"aString": "ops/1"}),
        ("POST", "/v1/ops/ops/a:b:cancel", {}, {"maybeString": "ops/a:b"}),
        ("PATCH", "/v1/fields/books/a%2Fb/%2f/c%20d", {"aBool": True},
         {"aString": "books/a%2Fb/%2f/c d", "inner": {"aBool": True}}),
        ("PATCH", "/v1/fields/books/", {}, {"aString": "books/", "inner": {}}),
        ("PROPFIND", "/v1/any/x", None, {"aString": "x"}),
        ("DELETE", "/v1/any/x?a_bool=true", None, {"aString": "x", "aBool": True}),
    ],
)  # fmt: skip
def test_path_and_query_take_every_kind_of_value(
    server: sdk.testing.Server, verb: str, target: str, body: Any, expected: dict[str, Any] | None
) -> None:
    answer = ask(server, target, body, verb=verb)
    assert (answer.status, answer.json if expected is not None else None) == (200 if expected else 400, expected)


def test_a_route_of_a_stream_streams(server: sdk.testing.Server) -> None:
    answer = ask(server, "/v1/repeat/x?times=2", None)
    assert [line["text"] for line in answer.lines] == ["x", "x"]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/v1/repeat/x?nothing=1", "query parameter 'nothing': sdk.web.Said has no field 'nothing'"),
        ("/v1/repeat/x?times=many", "times"),
        ("/v1/repeat/x?times=1&times=2", "is given 2 times, but is not repeated"),
        ("/v1/repeat/x?author=ann", "query parameter 'author' is a message"),
        ("/v1/repeat/x?counts.a=1", "'counts' in 'counts.a' is not a message"),
    ],
)
def test_a_wrong_query_is_explained(server: sdk.testing.Server, target: str, text: str) -> None:
    answer = ask(server, target, None)
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")
    assert text in answer.json["message"]


def test_a_body_is_checked_against_its_route(server: sdk.testing.Server) -> None:
    for target, body, text in (
        ("/v1/say?text=a", {}, "the fields of sdk.web.Said come in the body"),
        ("/v1/say", b"[1]", "the body is not a JSON object"),
        ("/v1/say", b'{"a":1,"a":2}', "the key 'a' is given twice"),
    ):
        answer: Answer = ask(server, target, body)
        assert answer.status == 400
        assert text in answer.json["message"]

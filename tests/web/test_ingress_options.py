"""CORS, the access log, and Envoy's own answers in each protocol."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

import sdk.testing
from sdk import GrpcOptions, OptionsError
from sdk._gen import envoy_pb2 as pb
from sdk._xds.listener import ListenerConfig, build_listener
from tests.support.envoy_rig import rig
from tests.support.log_files import complete_lines
from tests.support.loops import PATIENCE_S
from tests.web.conftest import ORIGIN
from tests.web.http_client import ask, ask_at

SAY = "/sdk.web.Chat/Say"
WEB_FRAME = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


def test_a_page_may_call_as_the_options_say(server: sdk.testing.Server) -> None:
    wants = {"origin": ORIGIN, "access-control-request-method": "POST"}
    wants["access-control-request-headers"] = "content-type,connect-protocol-version,x-mine"
    preflight = ask(server, SAY, None, wants, verb="OPTIONS")
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert set(wants["access-control-request-headers"].split(",")) <= set(
        preflight.headers["access-control-allow-headers"].split(",")
    )
    answer = ask(server, SAY, {"code": 5}, {"origin": ORIGIN})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (404, ORIGIN)
    # Over Connect and JSON, trailing metadata are headers that begin with "trailer-".
    readable = {"x-mine", "trailer-x-mine", "request_id", "retry-after", "x-ratelimit-remaining", "www-authenticate"}
    assert readable <= set(answer.headers["access-control-expose-headers"].split(","))


def test_another_page_may_not(server: sdk.testing.Server) -> None:
    other = {"origin": "https://other.example", "access-control-request-method": "POST"}
    for answer in (ask(server, SAY, None, other, verb="OPTIONS"), ask(server, SAY, {}, other)):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", [ORIGIN, "https://other.example", ""])
def test_a_cache_keeps_the_answers_of_each_page_apart(server: sdk.testing.Server, origin: str) -> None:
    # Without an origin, too: https://fetch.spec.whatwg.org/#cors-protocol-and-http-caches
    sent = {"origin": origin}
    answers = [
        ask(server, SAY, None, {**sent, "access-control-request-method": "POST"}, verb="OPTIONS"),
        ask(server, SAY, None, sent, verb="HEAD"),
        ask(server, SAY, {}, sent),
        ask(server, SAY, {"code": 5}, sent),
        ask(server, "/sdk.web.Chat/Look?encoding=json&message={}", None, sent),
        ask(server, "/sdk.web.Chat/Repeat", b"\0\0\0\0\2{}", {**sent, "content-type": "application/connect+json"}),
        ask(server, SAY, b"\0\0\0\0\0", {**sent, **WEB_FRAME}),
        ask(server, SAY, {}, {**sent, "application": "nobody"}),
        ask(server, "/openapi.json", None, sent),
    ]
    assert [answer.headers.get("vary") for answer in answers] == ["origin"] * len(answers)
    for accept in "text/event-stream", "":
        stream = ask(server, "/v1/repeat/x?times=1", None, {**sent, "accept": accept})
        assert stream.headers["vary"] == "accept,origin"


async def test_envoy_s_own_answers_vary_by_origin_too() -> None:
    async with rig() as it:
        it.config = replace(it.config, cors_origins=(ORIGIN,))
        await it.publish({"one": {"Greeter": (["demo.Greeter"], [])}})
        await it.answers("/demo.Greeter/SayHello")
        for sent in ({}, WEB_FRAME):
            answer = ask_at(f"127.0.0.1:{it.port}", "/demo.Greeter/SayHello", b"{}", {"origin": ORIGIN, **sent})
            assert answer.headers["vary"] == "origin"
            assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_without_origins_there_is_no_filter() -> None:
    config = ListenerConfig("/x")
    names = (b"filters.http.cors", b"vary-by-origin")
    built = build_listener(config).SerializeToString()
    assert not [name for name in names if name in built]
    built = build_listener(replace(config, cors_origins=("*",))).SerializeToString()
    assert all(name in built for name in names)


def test_a_call_of_grpc_passes_no_filter_for_other_protocols() -> None:
    listener = build_listener(ListenerConfig("/x", gate_socket="/y", pages=("/docs",)))
    manager = pb.HttpConnectionManager.FromString(listener.filter_chains[0].filters[0].typed_config.value)
    *others, router = manager.http_filters
    assert router.name == "envoy.filters.http.router"
    # Routes enable those that a call needs.
    assert [each.name for each in others if not each.disabled] == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cors_origins": "*"}, "cors_origins must be a tuple"),
        ({"cors_origins": ("page.example",)}, "must hold origins such as"),
        ({"cors_origins": ("https://page.example/path",)}, "must hold origins such as"),
        ({"cors_headers": ("X-Mine",)}, "must hold names of headers"),
        ({"cors_origins": ("*",), "cors_credentials": True}, "cors_credentials must not come with"),
    ],
)
def test_wrong_options_of_cors_are_explained(options: dict[str, object], text: str) -> None:
    with pytest.raises(OptionsError, match=text):
        GrpcOptions(**options)  # type: ignore[arg-type]  # it is the test


def test_the_access_log_has_method_and_status_of_each_call(server: sdk.testing.Server, access_log: Path) -> None:
    sent = {
        "log-json": ask(server, SAY, {"code": 5}, {"request_id": "log-json"}),
        "log-stream": ask(server, "/sdk.web.Chat/Repeat", {"times": 1, "code": 9}, {"request_id": "log-stream"}),
        "log-rule": ask(server, "/v1/repeat/x?times=1", None, {"request_id": "log-rule"}),
        "log-web": ask(server, SAY, b"\0\0\0\0\2\x18\x07", {"request_id": "log-web", **WEB_FRAME}),
        "log-nobody": ask(server, SAY, {}, {"request_id": "log-nobody", "application": "nobody"}),
    }
    until = time.monotonic() + PATIENCE_S
    lines = {}
    while not sent.keys() <= lines.keys():
        assert time.monotonic() < until, f"only {lines.keys()} in {access_log}"
        lines = {line["request_id"]: line for line in map(json.loads, complete_lines(access_log))}
        time.sleep(0.02)
    found = {key: tuple(lines[key][name] for name in ("method", "status", "http_status")) for key in sent}
    assert found == {
        "log-json": (SAY, "NOT_FOUND", 404),
        "log-stream": ("/sdk.web.Chat/Repeat", "FAILED_PRECONDITION", 200),
        "log-rule": ("/sdk.web.Chat/Repeat", "OK", 200),
        "log-web": (SAY, "PERMISSION_DENIED", 200),
        "log-nobody": (SAY, "NOT_FOUND", 404),
    }


async def test_envoy_s_own_answers_have_the_form_of_the_protocol() -> None:
    async with rig("a") as it:
        await it.publish({"one": {"Greeter": (["demo.Greeter"], [])}})
        await it.answers("/demo.Greeter/SayHello")
        target = f"127.0.0.1:{it.port}"
        answer = ask_at(target, "/demo.Greeter/SayHello", {}, {"request_id": "r"})
        assert (answer.status, answer.headers["content-type"]) == (503, "application/json")
        assert answer.json == {"code": "unavailable", "message": "No replica of application 'one' is ready."}
        assert answer.headers["request_id"] == "r"
        answer = ask_at(target, "/demo.Greeter/SayHello", b"", WEB_FRAME)
        assert (answer.status, answer.headers["grpc-status"]) == (200, "14")
        assert answer.headers["grpc-message"] == "No replica of application 'one' is ready."
        code, text, trailers = await it.call("/demo.Greeter/SayHello", ("request_id", "r"))
        assert (code, text) == ("UNAVAILABLE", "No replica of application 'one' is ready.")
        assert trailers["request_id"] == "r"


_HEAD = b"POST /sdk.web.Chat/Say HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status", "code", "text"),
    [
        (b"no HTTP\r\n\r\n", 400, "invalid_argument", "is not valid HTTP (http1.codec_error)"),
        (b"WRONG" + _HEAD[4:] + b"\r\n", 400, "invalid_argument", "is not valid HTTP (http1.codec_error)"),
        (_HEAD.replace(b"host: a\r\n", b"") + b"\r\n", 400, "invalid_argument", "(missing_host_header)"),
        (_HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n", 400, "invalid_argument", "codec_error"),
        (_HEAD.replace(b"/1.1", b"/1.0") + b"\r\n", 426, "unimplemented", "HTTP/1.1 and HTTP/2, not HTTP/1.0"),
        (_HEAD + b"x: %s\r\n\r\n" % bytes(300_000).replace(b"\0", b"x"), 431, "resource_exhausted", "too long"),
        (_HEAD + b"transfer-encoding: br\r\n\r\n", 501, "unimplemented", "does not support this kind of request"),
        (b"OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 404, "not_found", "nothing at this path"),
        (_HEAD + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", 501, "unimplemented", "such as WebSocket"),
    ],
    ids=["no-http", "verb", "host", "lengths", "http-1.0", "headers", "coding", "asterisk", "upgrade"],
)
def test_what_envoy_refuses_has_an_error_in_json(
    server: sdk.testing.Server, request_bytes: bytes, status: int, code: str, text: str
) -> None:
    host, port = server.target.split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        connection.sendall(request_bytes)
        response = http.client.HTTPResponse(connection)
        response.begin()
        error = json.loads(response.read())
    assert (response.status, response.getheader("content-type")) == (status, "application/json")
    assert response.getheader("request_id")
    assert error["code"] == code
    assert text in error["message"]

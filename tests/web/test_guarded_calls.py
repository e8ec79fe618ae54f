"""Rules, limits and the log of failed calls, for every protocol: what Envoy decides before a replica does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import sdk.testing
from sdk import GrpcOptions
from sdk.access import Access, Limit, Rule
from tests.support.log_files import complete_lines
from tests.support.loops import PATIENCE_S
from tests.web.http_client import ask
from tests.web.protocol_forms import FORMS
from tests.web.test_protocol_table import METHODS, call

KEY = {"x-api-key": "k" * 32}
CHAT = "sdk.web.Chat"
OPEN = ("Say", "Look", "Repeat", "Collect", "Watch")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("guarded"), "failed.log")


@pytest.fixture(scope="module")
def guarded(log: Path) -> Iterator[sdk.testing.Server]:
    from tests.web.chat_app import Chat

    keys = log.with_name("keys")
    keys.touch(mode=0o600)
    keys.write_text(f"batch sha256:{hashlib.sha256(KEY['x-api-key'].encode()).hexdigest()}\n")
    access = Access(
        api_keys=str(keys),
        rules=(Rule("authenticated", methods=tuple(f"{CHAT}/{name}" for name in OPEN)),),
        limits=(
            Limit(0.001, burst=1, methods=(f"{CHAT}/Look",)),
            Limit(0.001, burst=2, methods=(f"{CHAT}/Watch",)),
        ),
    )
    options = GrpcOptions(access=access, access_log=str(log), access_log_failed_only=True)
    with sdk.testing.serve(Chat.bind(), options=options) as server:
        yield server


@pytest.mark.parametrize("protocol", FORMS)
@pytest.mark.parametrize(
    ("method", "headers", "code", "http"), [("Say", {}, 16, 401), ("Repeat", {}, 16, 401), ("SaySync", KEY, 7, 403)]
)
def test_a_refusal_has_the_form_of_its_protocol(
    guarded: sdk.testing.Server, protocol: str, method: str, headers: dict[str, str], code: int, http: int
) -> None:
    from chat_pb2 import Heard, Said

    form = FORMS[protocol]
    takes, gives = METHODS[method]
    sent = {"content-type": form.content_type(takes, gives), **form.headers, **headers, "request_id": "r7"}
    answer = ask(guarded, f"/{CHAT}/{method}", form.encode([Said()], takes or gives), sent)
    assert answer.headers["request_id"] == "r7"
    if protocol.startswith("grpc-web"):
        outcome = form.decode(answer, Heard, takes, gives)
        assert (answer.status, outcome.code) == (200, code)
        assert outcome.message
    else:
        assert (answer.status, answer.headers["content-type"]) == (http, "application/json")
        assert answer.json["message"]


@pytest.mark.parametrize("method", ["Say", "Repeat"])
@pytest.mark.parametrize("protocol", FORMS)
def test_a_handler_knows_who_calls(guarded: sdk.testing.Server, protocol: str, method: str) -> None:
    from chat_pb2 import Said

    forged = {"x-sdk-api-key-name": "another"}
    _, outcome = call(guarded, FORMS[protocol], method, [Said(times=1)], {**KEY, **forged})
    assert (outcome.code, len(outcome.messages)) == (0, 1)
    known = [pair for pair in outcome.messages[0]["metadata"] if pair.startswith("identity")]
    assert known == ["identity api_key_name: (b'batch',)"]


def test_a_limit_counts_the_calls_of_a_method_however_its_path_is_written(guarded: sdk.testing.Server) -> None:
    query = f"?encoding=json&message={quote('{}')}"
    answers = [
        ask(guarded, f"/{CHAT}/Look{query}", None, KEY),
        ask(guarded, f"/{CHAT}/Look", {}, KEY),
        ask(guarded, f"/{CHAT}/Look?x=1", {}, KEY),
        ask(guarded, f"/{CHAT}/Look{query}&x=1", None, KEY),
    ]
    assert [answer.status for answer in answers] == [200, 429, 429, 429]
    assert {answer.json["code"] for answer in answers[1:]} == {"resource_exhausted"}
    assert all("retry-after" in answer.headers for answer in answers[1:])


def test_a_rule_allows_a_method_with_a_query_in_its_path(guarded: sdk.testing.Server) -> None:
    assert ask(guarded, f"/{CHAT}/Say?x=1", {}, KEY).status == 200
    assert ask(guarded, f"/{CHAT}/SaySync?x=1", {}, KEY).status == 403


def test_streams_that_fail_are_in_the_log_of_failed_calls(guarded: sdk.testing.Server, log: Path) -> None:
    from chat_pb2 import Said

    sent: dict[str, str] = {}
    for name, form in FORMS.items():
        for ending, last in (("ok", Said(times=1)), ("failed", Said(times=1, code=9))):
            request_id = f"{ending}-{name}"
            _, outcome = call(guarded, form, "Repeat", [last], {**KEY, "request_id": request_id})
            sent[request_id] = "OK" if outcome.code == 0 else "FAILED_PRECONDITION"
    failed = {request_id for request_id, status in sent.items() if status != "OK"}
    assert len(failed) == len(FORMS)
    until = time.monotonic() + PATIENCE_S
    lines: dict[str, Any] = {}
    while not failed <= lines.keys():
        assert time.monotonic() < until, f"only {lines.keys()} in {log}"
        lines = {line["request_id"]: line for line in map(json.loads, complete_lines(log))}
        time.sleep(0.02)
    assert {lines[request_id]["status"] for request_id in failed} == {"FAILED_PRECONDITION"}
    assert not [request_id for request_id in lines if request_id.startswith("ok-")]


def test_rules_know_the_method_of_a_route(guarded: sdk.testing.Server) -> None:
    assert ask(guarded, "/v1/say", {"text": "a"}, KEY).json["text"] == "a"
    assert ask(guarded, "/v1/heard/rooms/1/notes/a", None, KEY).status == 200
    assert ask(guarded, "/v1/say", {"text": "a"}).status == 401
    # The rules allow Repeat, and not the route of another method that its path matches, too.
    assert ask(guarded, "/v1/repeat/x?times=1", None, KEY).status == 200
    assert ask(guarded, "/v1/repeat/secret", None, KEY).status == 403
    assert ask(guarded, "/v1/repeat/secret", None).status == 401


def test_a_limit_counts_the_calls_of_a_route(guarded: sdk.testing.Server) -> None:
    target = f"/v1/watch/{'x' * 200}"
    answers = [ask(guarded, each, None, KEY) for each in (target, f"{target}?times=1", target)]
    answers.append(ask(guarded, f"/{CHAT}/Watch", {}, KEY))
    assert [answer.status for answer in answers] == [200, 200, 429, 429]

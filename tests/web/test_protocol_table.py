"""Every protocol × every kind of method × every ending × async and sync: HTTP status, headers and body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import sdk.testing
from sdk._web.http_status import CODES
from tests.web.http_client import Answer, ask
from tests.web.protocol_forms import FORMS, Form, Outcome

#: Method → whether its request and its response are streams.
METHODS = {
    "Say": (False, False),
    "SaySync": (False, False),
    "Repeat": (False, True),
    "RepeatSync": (False, True),
    "Collect": (True, False),
    "CollectSync": (True, False),
    "Talk": (True, True),
    "TalkSync": (True, True),
}


@dataclass(frozen=True)
class Ending:
    """The end of a call.

    Attributes:
        last: Fields of the last request message.
        code: The gRPC status code.
        message: A part of the status message.
        details: Types of the error's details.
    """

    last: dict[str, Any]
    code: int
    message: str = ""
    details: tuple[str, ...] = ()


ENDINGS = {
    "ok": Ending({}, 0),
    "status": Ending({"code": 5}, 5, "ends with 5 — ü"),
    "status with details": Ending({"code": 9, "has_detail": True}, 9, "ends with 9 — ü", ("google.rpc.RetryInfo",)),
    "bug": Ending({"raises": True}, 13, "ValueError: a bug — ü"),
}


def call(
    server: sdk.testing.Server, form: Form, method: str, requests: list[Any], headers: dict[str, str] | None = None
) -> tuple[Answer, Outcome]:
    from chat_pb2 import Heard

    takes, gives = METHODS[method]
    sent = {"content-type": form.content_type(takes, gives), **form.headers, **(headers or {})}
    answer = ask(server, f"/sdk.web.Chat/{method}", form.encode(requests, takes or gives), sent)
    return answer, form.decode(answer, Heard, takes, gives)


def requests_of(method: str, ending: Ending, messages: int) -> list[Any]:
    """Return the requests of a call that gets some messages before it ends."""
    from chat_pb2 import Said

    takes, gives = METHODS[method]
    if takes:
        last = [Said(**ending.last)] if ending.last else []
        return [*(Said(text=f"t{number}") for number in range(messages)), *last]
    return [Said(text="t", times=messages, **ending.last)] if gives else [Said(text="t", **ending.last)]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("messages", [0, 2])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("protocol", FORMS)
def test_an_ending(server: sdk.testing.Server, protocol: str, method: str, messages: int, ending: str) -> None:
    form, expected = FORMS[protocol], ENDINGS[ending]
    _, gives = METHODS[method]
    requests = requests_of(method, expected, messages)
    if protocol == "json" and not requests:
        pytest.skip("a body without a line is an error: test_a_wrong_body_is_explained")
    answer, outcome = call(server, form, method, requests, {"request_id": "r7"})
    assert outcome.code == expected.code
    assert expected.message in outcome.message
    assert tuple(outcome.details) == expected.details
    if gives:
        texts = [message.get("text") for message in outcome.messages]
        assert texts == [f"t{number}" if METHODS[method][0] else "t" for number in range(messages)]
    else:
        assert len(outcome.messages) == (expected.code == 0)
    _check_http(form, answer, outcome, gives)


def _check_http(form: Form, answer: Answer, outcome: Outcome, gives: bool) -> None:
    """Check the HTTP status, and the headers that every answer of the protocol has."""
    assert outcome.code is not None
    if form.name.startswith("grpc-web"):
        assert answer.status == 200
        assert outcome.trailing["request_id"] == "r7"
        return
    assert answer.headers["request_id"] == "r7"
    has_begun = (
        outcome.messages
        or outcome.code == 0
        or (form.name.startswith("connect") and "connect+" in answer.headers["content-type"])
    )
    assert answer.status == (200 if has_begun else CODES[outcome.code][1])
    if "content-length" in answer.headers:
        assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize("method", ["Say", "Repeat"])
@pytest.mark.parametrize("protocol", FORMS)
def test_a_deadline(server: sdk.testing.Server, protocol: str, method: str) -> None:
    from chat_pb2 import Said

    form = FORMS[protocol]
    header = {"grpc-timeout": "30m"} if protocol.startswith("grpc") else {"connect-timeout-ms": "30"}
    answer, outcome = call(server, form, method, [Said(waits=True, times=0)], {**header, "request_id": "r7"})
    assert (outcome.code, outcome.message) == (4, "Deadline exceeded.")
    _check_http(form, answer, outcome, METHODS[method][1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("protocol", FORMS)
def test_a_request_that_is_no_message(server: sdk.testing.Server, protocol: str, method: str) -> None:
    from chat_pb2 import Heard

    form = FORMS[protocol]
    takes, gives = METHODS[method]
    body = form.encode([_Nonsense()], takes or gives) if "json" not in protocol and protocol != "events" else b"{"
    if protocol == "connect-json" and (takes or gives):
        body = b"\0\0\0\0\1{"
    sent = {"content-type": form.content_type(takes, gives), **form.headers, "request_id": "r7"}
    answer = ask(server, f"/sdk.web.Chat/{method}", body, sent)
    outcome = form.decode(answer, Heard, takes, gives)
    assert outcome.code == (13 if protocol.startswith("grpc-web") else 3)
    assert "sdk.web.Said" in outcome.message
    _check_http(form, answer, outcome, gives)


class _Nonsense:
    def SerializeToString(self) -> bytes:
        return b"\xff\xff\xff"

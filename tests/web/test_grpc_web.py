"""gRPC-Web, rule by rule: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md. Endings: the table."""

from __future__ import annotations

import pytest

import sdk.testing
from tests.web.http_client import ask
from tests.web.protocol_forms import FORMS, Outcome, envelope

WEB = FORMS["grpc-web"]
SAY, REPEAT, COLLECT, NOTHING = (f"/sdk.web.Chat/{name}" for name in ("Say", "Repeat", "Collect", "Nothing"))


def call(server: sdk.testing.Server, path: str, headers: dict[str, str], body: bytes = envelope(b"")) -> Outcome:
    from chat_pb2 import Heard

    sent = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "request_id": "r7", **headers}
    outcome = WEB.decode(ask(server, path, body, sent), Heard, False, True)
    assert outcome.trailing["request_id"] == "r7"
    return outcome


@pytest.mark.parametrize("path", [SAY, REPEAT, COLLECT, NOTHING, "/v1/say"])
@pytest.mark.parametrize(
    "kind", ["grpc-web+json", "grpc-web-text+json", "grpc-web+thrift; charset=utf-8", "grpc-web-texts", "grpc-webx"]
)
def test_messages_of_another_kind_are_unimplemented(server: sdk.testing.Server, path: str, kind: str) -> None:
    # The body is neither a frame nor base64.
    outcome = call(server, path, {"content-type": f"application/{kind}"}, b'{"text": "a"}')
    assert (outcome.code, outcome.messages) == (12, [])
    named = f"the content-type 'application/{kind.partition(';')[0]}' is not supported: use one of "
    assert outcome.message.startswith(f"{named}application/grpc-web, application/grpc-web+proto, ")


@pytest.mark.parametrize("path", [SAY, REPEAT, COLLECT])
@pytest.mark.parametrize("timeout", ["", "5", "S", "5s", "-1S", "1.5S", "123456789S", "soon"])
def test_a_malformed_timeout_is_an_internal_error(server: sdk.testing.Server, path: str, timeout: str) -> None:
    outcome = call(server, path, {"grpc-timeout": timeout or " "})
    assert (outcome.code, outcome.message) == (13, f"malformed grpc-timeout {timeout!r}")


@pytest.mark.parametrize("path", [SAY, REPEAT, COLLECT])
def test_a_timeout_of_zero_has_passed(server: sdk.testing.Server, path: str) -> None:
    # Clients of gRPC send it if the deadline passed while the call was on its way.
    outcome = call(server, path, {"grpc-timeout": "0n"})
    assert (outcome.code, outcome.message, outcome.messages) == (4, "Deadline exceeded.", [])

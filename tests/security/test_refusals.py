"""Every refusal in the form of each protocol: reason × protocol, with status, message, request id and challenge."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # they have no types
from greeter_pb2 import HelloReply, HelloRequest

from sdk._ingress.envoy.stats import fetch_stats
from sdk._ingress.proxy_metrics import ENVOY_REJECTIONS
from tests.security.greeting import EACH, SAY_HELLO
from tests.security.world import CALLERS, DENIED, IMPOSTOR, UNKNOWN, Caller, World, bearer
from tests.support.deadlines import wait_until
from tests.support.log_files import entries

EXHAUSTED, RETRY_INFO = "RESOURCE_EXHAUSTED", "google.rpc.RetryInfo"
CODES = {
    UNKNOWN: (16, "unauthenticated", 401),
    DENIED: (7, "permission_denied", 403),
    EXHAUSTED: (8, "resource_exhausted", 429),
}


@dataclass(frozen=True)
class Refusal:
    """A reason to refuse calls.

    Attributes:
        caller: Who calls.
        application: The application that is called.
        status: Status of the call.
        text: A part of its message.
        challenge: Value of ``www-authenticate``, or its start.
        logged: Details in the access log, or their start.
        counted: The statistic of Envoy that counts it; empty if a replica does.
    """

    caller: Caller
    application: str
    status: str
    text: str
    challenge: str
    logged: str
    counted: str = ""


REFUSALS = {
    "no credentials": Refusal(
        CALLERS["nobody"], "shop", UNKNOWN, "The call needs credentials: the", "Bearer", "rbac_access", "no_rule"
    ),
    "a wrong token": Refusal(
        bearer(IMPOSTOR.token()), "shop", UNKNOWN, "Jwt verification fails", "Bearer", "jwt_authn_access", "token"
    ),
    "a wrong key": Refusal(
        Caller((("x-api-key", "x"),)), "shop", UNKNOWN, "The API key is not", "ApiKey", "api_key_access", "api_key"
    ),
    "no rule": Refusal(
        CALLERS["a partner"], "shop", DENIED, "No rule of the ingress allows", "", "rbac_access_denied", "no_rule"
    ),
    "a limit": Refusal(
        CALLERS["nobody"], "limited", EXHAUSTED, "exceeds a limit of the ingress", "", "local_rate", "limit"
    ),
    "a limit of calls at once": Refusal(
        CALLERS["nobody"], "full", EXHAUSTED, "limit of calls at once from all clients is 1", "", "via_upstream"
    ),
    "no credentials for a deployment": Refusal(
        CALLERS["nobody"], "ruled", UNKNOWN, "the deployment allows SayHello for known clients only", "Bearer", "via_up"
    ),
    "no rule of a deployment": Refusal(
        CALLERS["a partner"], "ruled", DENIED, "The deployment does not allow SayHello", "", "via_up"
    ),
}  # fmt: skip
WEB = ("application/grpc-web+proto", "application/json", "application/proto")


@pytest.fixture(scope="module", autouse=True)
def spent(world: World) -> Iterator[None]:
    """Use the one call that each limit allows."""
    world.call(CALLERS["nobody"], SAY_HELLO, "limited")
    chat = world.channel().stream_stream(EACH, HelloRequest.SerializeToString, HelloReply.FromString)
    is_over = Event()

    def requests() -> Iterator[HelloRequest]:
        yield HelloRequest()
        is_over.wait()

    call = chat(requests(), metadata=[("application", "full")])
    next(call)  # its handler has begun
    yield
    is_over.set()
    call.cancel()


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_of_grpc(world: World, reason: str) -> None:
    refusal, before = REFUSALS[reason], refused(world)
    answer = world.call(refusal.caller, SAY_HELLO, refusal.application, ("request_id", f"grpc {reason}"))
    assert answer.status == refusal.status
    assert refusal.text in answer.details
    assert answer.trailers["request_id"] == f"grpc {reason}"
    assert str(answer.trailers.get("www-authenticate", "")).startswith(refusal.challenge)
    assert has_retry_info(answer.trailers.get("grpc-status-details-bin")) == (refusal.status == EXHAUSTED)
    assert refused(world) - before == ({refusal.counted: 1} if refusal.counted else {})
    assert ENVOY_REJECTIONS.get(refusal.counted, refusal.status) in (refusal.status, DENIED)
    assert_logged(world, f"grpc {reason}", refusal)


@pytest.mark.parametrize("kind", WEB)
@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_of_other_protocols(world: World, reason: str, kind: str) -> None:
    refusal = REFUSALS[reason]
    request_id = f"{kind} {reason}"
    metadata = {key: value for key, value in refusal.caller.metadata if isinstance(value, str)}
    body = b"{}" if kind == "application/json" else b"" if kind == "application/proto" else bytes(5)
    http, headers, data = world.ask(
        SAY_HELLO,
        body,
        {**metadata, "content-type": kind, "application": refusal.application, "request_id": request_id},
    )
    number, name, status = CODES[refusal.status]
    if kind == WEB[0]:
        trailers = headers | dict(line.split(": ", 1) for line in data[5:].decode().split("\r\n") if line)
        assert http == 200
        assert headers.get("content-type", kind) == kind, "Envoy sends none with an empty body"
        assert trailers["grpc-status"] == str(number)
        assert trailers["request_id"] == request_id
        assert trailers.get("www-authenticate", "").startswith(refusal.challenge)
        packed = trailers.get("grpc-status-details-bin")
        is_dated = has_retry_info(packed and base64.b64decode(packed + "=="))
    else:
        assert (http, headers["content-type"]) == (status, "application/json")
        error = json.loads(data)
        assert error["code"] == name
        assert refusal.text in error["message"]
        assert headers["request_id"] == request_id
        assert headers.get("www-authenticate", "").startswith(refusal.challenge)
        trailers, is_dated = headers, [each["type"] for each in error.get("details", ())] == [RETRY_INFO]
        for detail in error.get("details", ()):
            message = error_details_pb2.RetryInfo.FromString(base64.b64decode(detail["value"] + "=="))
            assert message.retry_delay.seconds == 1
    assert is_dated == (refusal.status == EXHAUSTED)
    assert (refusal.status == EXHAUSTED) == (trailers.get("x-ratelimit-remaining") == "0")
    assert_logged(world, request_id, refusal)


def refused(world: World) -> Counter[str]:
    """Return the number of calls that Envoy has refused, by reason."""
    stats = asyncio.run(fetch_stats(world.admin_socket))
    return Counter({reason: stats[reason] for reason in ENVOY_REJECTIONS})


def has_retry_info(packed: Any) -> bool:
    """Return True for a ``google.rpc.Status`` that says when to try again."""
    details = status_pb2.Status.FromString(packed).details if packed else ()
    return [each.TypeName() for each in details] == [RETRY_INFO]


def assert_logged(world: World, request_id: str, refusal: Refusal) -> None:
    """Wait for the line of a call in the access log, and check its status and its reason."""
    found: list[dict[str, str]] = []

    def is_logged() -> bool:
        found[:] = [
            entry for entry in entries(world.folder / "access.log", request_id) if entry.get("request_id") == request_id
        ]
        return bool(found)

    wait_until(is_logged)
    assert found[0]["status"] == refusal.status
    assert found[0]["details"].startswith(refusal.logged)

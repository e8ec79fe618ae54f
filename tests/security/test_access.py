"""Callers × methods × ways, with the expected answers, against the real ingress."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from greeter_pb2 import HelloReply, HelloRequest

from tests.security.greeting import ALL, EACH, MANY, RECEIVED, SAY_HELLO
from tests.security.world import (
    CALLERS,
    CLIENTS,
    DENIED,
    HEALTH,
    IMPOSTOR,
    ISSUER,
    KEYS,
    LIST,
    OK,
    OTHERS,
    PARTNER,
    REFLECTION,
    STRANGER,
    UNKNOWN,
    Caller,
    World,
    bearer,
)
from tests.support.deadlines import wait_until
from tests.support.log_files import entries
from tests.support.loops import PATIENCE_S
from tests.support.tokens import encode

# Caller → answers for SayHello, SayHelloInManyTongues, SayHelloToAll and SayHelloToEach of the application "shop".
SHOP: dict[str, tuple[str, str, str, str]] = {
    "nobody": (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
    "a user": (OK, DENIED, DENIED, DENIED),
    "an admin": (OK, OK, OK, OK),
    "an admin by a nested claim": (OK, OK, OK, OK),
    "a partner": (DENIED, DENIED, DENIED, DENIED),
    "a writer by scope": (OK, DENIED, OK, DENIED),
    "a reader by scope": (OK, DENIED, DENIED, DENIED),
    "the batch key": (OK, OK, OK, OK),
    "the viewer key": (DENIED, OK, DENIED, DENIED),
    "a long key": (DENIED, OK, DENIED, DENIED),
    "a workload": (OK, OK, OK, OK),
    "another workload": (DENIED, DENIED, DENIED, DENIED),
    "a host": (DENIED, OK, DENIED, DENIED),
}
# The same for the application "other".
OTHER: dict[str, tuple[str, str, str, str]] = {
    "an admin": (OK, OK, OK, OK),
    "an admin by a nested claim": (DENIED, DENIED, DENIED, DENIED),
    "the batch key": (DENIED, OK, DENIED, DENIED),
    "a workload": (DENIED, DENIED, DENIED, DENIED),
}


@pytest.mark.parametrize(
    ("application", "who", "answers"),
    [(name, who, answers) for name, table in (("shop", SHOP), ("other", OTHER)) for who, answers in table.items()],
)
def test_who_may_call_what(world: World, application: str, who: str, answers: tuple[str, ...]) -> None:
    got = [world.call(CALLERS[who], path, application) for path in (SAY_HELLO, MANY, ALL, EACH)]
    assert tuple(each.status for each in got) == answers
    for each in got:
        assert each.trailers["request_id"], "every answer has it"
        if each.status == UNKNOWN:
            assert "credentials" in each.details
            assert each.trailers["www-authenticate"] == "Bearer"
        elif each.status == DENIED:
            assert each.details == "No rule of the ingress allows this call for this client."


def test_what_is_open(world: World) -> None:
    nobody, key = CALLERS["nobody"], CALLERS["the viewer key"]
    assert world.call(nobody, SAY_HELLO, "open").status == OK
    assert world.call(nobody, HEALTH).status == OK
    assert world.call(nobody, REFLECTION).status == UNKNOWN
    assert world.call(key, REFLECTION).status == DENIED
    assert world.call(nobody, LIST).status == UNKNOWN
    assert world.call(key, LIST).status == OK
    assert world.call(nobody, SAY_HELLO, "no-such-application").status == UNKNOWN, "its existence is no secret"


@pytest.mark.parametrize(
    ("who", "key", "identities"),
    [
        ("a user", "token_subject", ["ann"]),
        ("the batch key", "api_key_name", ["batch"]),
        ("a workload", "x509_subject_alternative_name", ["spiffe://acme/batch/7"]),
    ],
)
def test_a_handler_knows_who_calls(world: World, who: str, key: str, identities: list[str]) -> None:
    caller = CALLERS[who]
    seen = world.call(caller).seen
    assert (seen["key"], seen["identities"]) == (key, identities)
    assert "authorization" not in seen["metadata"], "the token stays with the ingress"
    assert "x-api-key" not in seen["metadata"]


def test_the_same_through_a_handle(world: World) -> None:
    admin = CALLERS["an admin"]
    seen = world.call(admin, SAY_HELLO, "outer").seen
    assert seen["identities"] == ["root"]
    assert seen["claims"]["roles"] == ["user", "admin"]


def test_a_handler_sees_the_claims_that_its_issuer_is_configured_for(world: World) -> None:
    claims = world.call(CALLERS["an admin by a nested claim"]).seen["claims"]
    assert claims == {"iss": PARTNER.name, "sub": "p"}
    assert world.call(CALLERS["an admin"]).seen["claims"]["aud"] == "shop"


FORGED = {
    "names that the ingress uses": (
        ("x-sdk-token-claims", encode(json.dumps({"iss": ISSUER.name, "sub": "root", "roles": ["admin"]}).encode())),
        ("x-sdk-api-key-name", "batch"),
    ),
    "twice": (("x-sdk-api-key-name", "viewer"), ("x-sdk-api-key-name", "batch"), ("x-sdk-token-claims", "e30")),
    "binary": (("x-sdk-api-key-name-bin", b"batch"), ("x-sdk-token-claims-bin", b"{}")),
    "an empty value": (("x-sdk-api-key-name", ""), ("x-sdk-token-claims", "")),
    "underscores": (("x_sdk_api_key_name", "batch"), ("x_sdk_token_claims", "e30")),
    "certificates": (
        ("x-forwarded-client-cert", f'Cert="{CLIENTS.sign("x").certificate.decode()!r}";URI=spiffe://acme/batch/7'),
        ("x-forwarded-proto", "https"),
    ),
    "Envoy's names": (("x-envoy-internal", "true"), ("x-envoy-original-path", SAY_HELLO), ("x-forwarded-for", "::1")),
    "the path of an open method": (
        ("x-envoy-original-dst-host", "h"),
        ("x-rewrite-url", HEALTH),
        ("x-http-path", HEALTH),
    ),
}


@pytest.mark.parametrize("how", FORGED)
def test_metadata_that_imitates_ours_does_nothing(world: World, how: str) -> None:
    assert world.call(CALLERS["nobody"], SAY_HELLO, "shop", *FORGED[how]).status == UNKNOWN
    seen = world.call(CALLERS["nobody"], SAY_HELLO, "open", *FORGED[how]).seen
    assert (seen["key"], seen["identities"], seen["claims"]) == (None, [], {})
    assert seen["auth"] == ["transport_security_type"]
    seen = world.call(CALLERS["a user"], SAY_HELLO, "shop", *FORGED[how]).seen
    assert seen["identities"] == ["ann"]
    assert "roles" not in seen["claims"]


@pytest.mark.parametrize("kind", ["application/json", "application/grpc-web+proto"])
@pytest.mark.parametrize("how", FORGED)
def test_the_same_over_other_protocols(world: World, how: str, kind: str) -> None:
    forged = {key: value.replace("\n", "") for key, value in FORGED[how] if isinstance(value, str)}
    body = b"{}" if kind == "application/json" else bytes(5)
    for application, caller in (("shop", "nobody"), ("open", "nobody"), ("shop", "a user")):
        own = {key: value for key, value in CALLERS[caller].metadata if isinstance(value, str)}
        request_id = f"{kind} {how} {application} {caller}"
        headers = {"content-type": kind, "application": application, "request_id": request_id, **forged, **own}
        _, answered, data = world.ask(SAY_HELLO, body, headers)
        reached = [identities for received, identities in RECEIVED if received == request_id]
        if (application, caller) == ("shop", "nobody"):
            assert answered["call-status"] == UNKNOWN, data
            assert reached == []
        else:
            assert reached == ([[b"ann"]] if caller == "a user" else [[]])


def part(number: int, change: Callable[[str], str], **claims: Any) -> str:
    """Return a token with one of its three parts changed."""
    parts = ISSUER.token(**claims).split(".")
    parts[number] = change(parts[number])
    return ".".join(parts)


def another(text: str) -> str:
    """Return a signature with another first letter; a fixed end would be that of one signature of 256."""
    return ("A" if text[0] != "A" else "B") + text[1:]


NOW = int(time.time())
WRONG_TOKENS = {
    "of another key": IMPOSTOR.token(),
    "of an unknown issuer": STRANGER.token(),
    "without an issuer": ISSUER.token(iss=None),
    "expired": ISSUER.token(exp=NOW - 3600),
    "without an end": ISSUER.token(exp=None),
    "not valid yet": ISSUER.token(nbf=NOW + 86400),
    "for somebody else": ISSUER.token(aud="other"),
    "without an audience": ISSUER.token(aud=None),
    "without a signature": part(2, lambda _: ""),
    "with a changed signature": part(2, another),
    "with changed claims": part(1, lambda _: encode(json.dumps(ISSUER.claims(roles=["admin"])).encode())),
    "alg none": ISSUER.sign({"alg": "none"}, ISSUER.claims()).rpartition(".")[0] + ".",
    "alg None with a signature": ISSUER.token({"alg": "None"}),
    "HS256 signed with the public key": ISSUER.token({"alg": "HS256"}),
    "another algorithm": ISSUER.token({"alg": "RS256"}),
    "with an unknown key id": ISSUER.token({"kid": "k2"}),
    "with its own key": IMPOSTOR.token({"jwk": IMPOSTOR.jwk}),
    "with the URL of its key": IMPOSTOR.token({"jku": "https://stranger.example.org/jwks"}),
    "two parts": ".".join(ISSUER.token().split(".")[:2]),
    "four parts": ISSUER.token() + ".x",
    "not base64": "a.b.c",
    "empty": "",
    "of 20 KiB": part(2, another, more="x" * (15 << 10)),
}


@pytest.mark.parametrize("kind", WRONG_TOKENS)
@pytest.mark.parametrize("application", ["shop", "open"])
def test_a_wrong_token_is_refused_even_where_none_is_needed(world: World, kind: str, application: str) -> None:
    answer = world.call(bearer(WRONG_TOKENS[kind]), SAY_HELLO, application)
    if kind == "empty" and application == "open":
        assert answer.status in (OK, UNKNOWN)
        return
    assert answer.status == UNKNOWN, answer
    assert answer.trailers["request_id"]
    assert answer.trailers["www-authenticate"]
    assert answer.details


def test_a_token_of_64_kib(world: World) -> None:
    """It is refused, and other calls of the connection continue."""
    answer = world.call(bearer(part(2, another, more="x" * (48 << 10))))
    assert answer.status == UNKNOWN
    assert world.call(CALLERS["a user"]).status == OK


def test_tokens_within_the_clock_skew(world: World) -> None:
    assert world.call(bearer(ISSUER.token(exp=int(time.time()) - 5))).status == OK
    assert world.call(bearer(ISSUER.token(exp=int(time.time()) - 90))).status == UNKNOWN


WRONG_KEYS = {
    "unknown": (("x-api-key", "nothing"),),
    "empty": (("x-api-key", ""),),
    "its digest": (("x-api-key", hashlib.sha256(KEYS["batch"].encode()).hexdigest()),),
    "its name": (("x-api-key", "batch"),),
    "too long": (("x-api-key", "x" * 5000),),
    "twice": (("x-api-key", KEYS["batch"]), ("x-api-key", KEYS["batch"])),
    "with another": (("x-api-key", KEYS["viewer"]), ("x-api-key", KEYS["batch"])),
    "longer": (("x-api-key", KEYS["batch"] + "b"),),
}


@pytest.mark.parametrize("kind", WRONG_KEYS)
def test_a_wrong_api_key_is_refused(world: World, kind: str) -> None:
    answer = world.call(Caller(WRONG_KEYS[kind]), SAY_HELLO, "open")
    assert (answer.status, answer.details) == (UNKNOWN, "The API key is not valid.")
    assert answer.trailers["www-authenticate"] == "ApiKey"
    assert answer.trailers["request_id"]


@pytest.mark.parametrize(
    "path",
    [
        "/greeter.Greeter/sayHello", "/greeter.greeter/SayHello", "/GREETER.GREETER/SAYHELLO",
        "//greeter.Greeter/SayHello",
        "/greeter.Greeter//SayHello", "/greeter.Greeter/SayHello/", "/greeter.Greeter/SayHello?x",
        "/greeter%2EGreeter/SayHello", "/greeter.Greeter%2FSayHello", "/x/../greeter.Greeter/SayHello",
        "/grpc.health.v1.Health/../greeter.Greeter/SayHello", "/grpc.health.v1.Health/%2e%2e/greeter.Greeter/SayHello",
        "/-/healthz/../greeter.Greeter/SayHello", "/./greeter.Greeter/SayHello", "/greeter.Greeter/SayHello;x=1",
        "/greeter.Greeter\\SayHello",
    ],
)  # fmt: skip
def test_tricks_with_the_path_reach_no_method(world: World, path: str) -> None:
    """Rules, routes and replicas take the path as it is: what looks alike is another method."""
    for who, application in (("nobody", "shop"), ("the viewer key", "shop"), ("nobody", "open")):
        channel = world.channel()
        method = channel.unary_unary(path, HelloRequest.SerializeToString, HelloReply.FromString)
        metadata = (*CALLERS[who].metadata, ("application", application))
        with pytest.raises(grpc.RpcError) as raised:
            method(HelloRequest(), metadata=metadata, timeout=PATIENCE_S)
        assert raised.value.code().name in (UNKNOWN, DENIED, "UNIMPLEMENTED"), path


def test_tricks_with_the_application_reach_no_other_one(world: World) -> None:
    nobody = CALLERS["nobody"]
    assert world.call(nobody, SAY_HELLO, "open", ("application", "shop")).status == UNKNOWN, "the last value counts"
    assert world.call(nobody, SAY_HELLO, "shop", ("application", "open")).status == OK
    for application, path in (("open", f"/shop{SAY_HELLO}"), ("shop", f"/shop{SAY_HELLO}"), ("open", f"/x{SAY_HELLO}")):
        assert world.call(nobody, path, application).status in (UNKNOWN, "UNIMPLEMENTED"), "the path counts"
    assert world.call(nobody, f"/open{SAY_HELLO}", "shop").status == OK
    for name in ("open,shop", "shop,open", "OPEN", "open/", "open#", ""):
        assert world.call(nobody, SAY_HELLO, name).status == UNKNOWN, name


def test_a_client_with_a_certificate_of_another_authority_does_not_connect(world: World) -> None:
    assert world.call(Caller(certificate=OTHERS.sign("x", uri=("spiffe://acme/x",))), SAY_HELLO, "open").status == (
        "UNAVAILABLE"
    )


def test_no_credential_is_in_the_access_log_or_in_an_answer(world: World) -> None:
    refused = [*map(bearer, WRONG_TOKENS.values()), *map(Caller, WRONG_KEYS.values())]
    for number, caller in enumerate((*CALLERS.values(), *refused)):
        answer = world.call(caller, SAY_HELLO, "shop", ("request_id", f"secret {number}"))
        for _, value in caller.metadata:
            secret = str(value).rpartition(".")[2]  # the signature of a token
            if len(secret) > 8:
                assert secret not in f"{answer.details} {answer.trailers} {answer.seen}"
    log = world.folder / "access.log"
    wait_until(lambda: f"secret {number}" in log.read_text())
    secrets = {str(value) for caller in (*CALLERS.values(), *refused) for _, value in caller.metadata}
    parts = {part for secret in secrets for part in (secret, secret.rpartition(".")[2]) if len(part) > 8}
    assert not [part for part in parts if part in log.read_text()]


def test_every_refusal_is_in_the_access_log_with_its_reason(world: World) -> None:
    reasons: dict[str, tuple[str, str]] = {}
    callers = {"nobody": CALLERS["nobody"], "a user": CALLERS["a user"], "expired": bearer(WRONG_TOKENS["expired"])}
    for who, caller in callers.items():
        answer = world.call(caller, MANY, "shop", ("request_id", f"logged {who}"))
        assert answer.trailers["request_id"] == f"logged {who}"

    def are_logged() -> bool:
        for entry in entries(world.folder / "access.log", '"logged '):
            reasons[entry["request_id"].removeprefix("logged ")] = (entry["status"], entry["details"])
        return len(reasons) == len(callers)

    wait_until(are_logged)
    assert reasons["nobody"] == (UNKNOWN, "rbac_access_denied_matched_policy[none]")
    assert reasons["a user"] == (DENIED, "rbac_access_denied_matched_policy[none]")
    assert reasons["expired"] == (UNKNOWN, "jwt_authn_access_denied{Jwt_is_expired}")

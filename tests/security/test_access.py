"""Callers × methods × ways, with the expected answers, against the real ingress."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from greeter_pb2 import HelloReply, HelloRequest

import sdk.testing
from sdk import GrpcOptions
from sdk.access import Access, ApiKey, Certificate, JwtIssuer, Rule, Token
from sdk.testing._certificates import write_certificate
from tests.security.greeting import ALL, EACH, MANY, SAY_HELLO, SERVICE, Mirror, Outer
from tests.support.certificates import Authority, Pair
from tests.support.log_files import complete_lines
from tests.support.loops import PATIENCE_S
from tests.support.tokens import Issuer, encode

HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
LIST = "/ray.serve.RayServeAPIService/ListApplications"

ISSUER, PARTNER = Issuer("https://id.example.org"), Issuer("https://partner.example.org", "p1")
IMPOSTOR, STRANGER = Issuer(ISSUER.name), Issuer("https://stranger.example.org")
CLIENTS, OTHERS = Authority("clients"), Authority("others")
KEYS = {"batch": "sdk_" + "b" * 43, "viewer": "short", "long": "l" * 500}

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Caller:
    """Credentials of a client."""

    metadata: Metadata = ()
    certificate: Pair | None = None


def bearer(token: str) -> Caller:
    return Caller((("authorization", f"Bearer {token}"),))


CALLERS: dict[str, Caller] = {
    "nobody": Caller(),
    "a user": bearer(ISSUER.token()),
    "an admin": bearer(ISSUER.token(sub="root", roles=["user", "admin"])),
    "an admin by a nested claim": bearer(PARTNER.token(sub="p", realm={"roles": ["admin"]})),
    "a partner": bearer(PARTNER.token(sub="p")),
    "a writer by scope": bearer(ISSUER.token(scope="read write")),
    "a reader by scope": bearer(ISSUER.token(scope="read writer")),
    "the batch key": Caller((("x-api-key", KEYS["batch"]),)),
    "the viewer key": Caller((("x-api-key", KEYS["viewer"]),)),
    "a long key": Caller((("x-api-key", KEYS["long"]),)),
    "a workload": Caller(certificate=CLIENTS.sign("w", uri=("spiffe://acme/batch/7",))),
    "another workload": Caller(certificate=CLIENTS.sign("spiffe://acme/batch/7", uri=("spiffe://other/batch/7",))),
    "a host": Caller(certificate=CLIENTS.sign("h", dns=("worker.acme.org",))),
}

# Rules of the server: administrators may do everything; users may say hello; …
RULES = (
    Rule(Token(ISSUER.name, {"roles": "admin"})),
    Rule(Token(PARTNER.name, {"realm.roles": ["owner", "admin"]}), applications=("shop",)),
    Rule(Token(claims={"sub": "ann*"}), methods=(f"{SERVICE}/SayHello",)),
    Rule(Token(claims={"scope": "write"}), methods=(f"{SERVICE}/SayHelloToAll",)),
    Rule([ApiKey("batch"), Certificate("spiffe://acme/*")], applications=("shop",), methods=(SERVICE,)),
    Rule([ApiKey("*"), Certificate("*.acme.org")], methods=(f"{SERVICE}/SayHelloInManyTongues",)),
    Rule("anyone", applications=("open",)),
    Rule("authenticated", methods=("ray.serve.RayServeAPIService",)),
)
OK, DENIED, UNKNOWN = "OK", "PERMISSION_DENIED", "UNAUTHENTICATED"

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


@dataclass
class Answer:
    status: str
    details: str = ""
    trailers: dict[str, str | bytes] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)


class World:
    """The server, and a channel for each certificate."""

    def __init__(self, server: sdk.testing.Server, folder: Path, authority: bytes) -> None:
        self.server, self.folder, self._authority = server, folder, authority
        self._channels: dict[Pair | None, grpc.Channel] = {}

    def channel(self, certificate: Pair | None = None) -> grpc.Channel:
        if certificate not in self._channels:
            credentials = grpc.ssl_channel_credentials(
                self._authority, certificate and certificate.key, certificate and certificate.certificate
            )
            self._channels[certificate] = self.server.channel(
                credentials=credentials, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
            )
        return self._channels[certificate]

    def call(self, caller: Caller, path: str = SAY_HELLO, application: str = "shop", *more: tuple[str, str]) -> Answer:
        """Call a method of a certain kind, with one request."""
        channel = self.channel(caller.certificate)
        metadata = (*caller.metadata, ("application", application), *more)
        streams = path in (ALL, EACH, REFLECTION)
        kind = channel.stream_stream if streams else channel.unary_stream  # a unary answer is a stream of one
        method = kind(path, HelloRequest.SerializeToString if path.startswith(f"/{SERVICE}") else bytes, bytes)
        request: Any = HelloRequest() if path.startswith(f"/{SERVICE}") else b""
        call = method(iter([request]) if streams else request, metadata=metadata, timeout=PATIENCE_S)
        messages: list[bytes] = []
        with contextlib.suppress(grpc.RpcError):  # its code is that of the call
            messages.extend(call)
        seen = json.loads(HelloReply.FromString(messages[0]).text) if messages and SERVICE in path else {}
        return Answer(call.code().name, call.details() or "", dict(call.trailing_metadata() or ()), seen)


def line(name: str, key: str) -> str:
    return f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="sdk-t-") as path:
        folder = Path(path)
        (folder / "ca.crt").write_bytes(CLIENTS.certificate)
        keys = folder / "keys"
        keys.touch(mode=0o600)
        keys.write_text("# keys of the test\n" + "".join(line(name, key) for name, key in KEYS.items()))
        (folder / "partner.json").write_text(PARTNER.jwks)
        certificate, key = write_certificate(folder)
        access = Access(
            issuers=(
                JwtIssuer(ISSUER.name, ISSUER.jwks, audiences=("shop",), clock_skew_s=10),
                JwtIssuer(PARTNER.name, str(folder / "partner.json"), claims=("sub", "iss")),
            ),
            api_keys=str(keys),
            rules=RULES,
        )
        options = GrpcOptions(
            tls_certificate=certificate,
            tls_private_key=key,
            tls_client_ca=str(folder / "ca.crt"),
            tls_client_certificate="optional",
            access=access,
            access_log=str(folder / "access.log"),
        )
        shop = Outer.bind(Mirror.options(name="Inner", expose=False).bind())
        targets = {"shop": Mirror.bind(), "other": Mirror.bind(), "open": Mirror.bind(), "outer": shop}
        with sdk.testing.serve(targets, options=options) as server:
            yield World(server, folder, Path(certificate).read_bytes())


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


def part(number: int, change: Callable[[str], str]) -> str:
    """Return a token with one of its three parts changed."""
    parts = ISSUER.token().split(".")
    parts[number] = change(parts[number])
    return ".".join(parts)


NOW = int(time.time())
WRONG_TOKENS = {
    "of another key": IMPOSTOR.token(),
    "of an unknown issuer": STRANGER.token(),
    "without an issuer": ISSUER.token(iss=None),
    "expired": ISSUER.token(exp=NOW - 60),
    "without an end": ISSUER.token(exp=None),
    "not valid yet": ISSUER.token(nbf=NOW + 600),
    "for somebody else": ISSUER.token(aud="other"),
    "without an audience": ISSUER.token(aud=None),
    "without a signature": part(2, lambda _: ""),
    "with a changed signature": part(2, lambda text: ("A" if text[0] != "A" else "B") + text[1:]),
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
    "of 20 KiB": ISSUER.token(more="x" * (15 << 10))[:-2] + "AA",
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
    answer = world.call(bearer(ISSUER.token(more="x" * (48 << 10))[:-2] + "AA"))
    assert answer.status == UNKNOWN
    assert world.call(CALLERS["a user"]).status == OK


def test_tokens_within_the_clock_skew(world: World) -> None:
    assert world.call(bearer(ISSUER.token(exp=int(time.time()) - 5))).status == OK
    assert world.call(bearer(ISSUER.token(exp=int(time.time()) - 20))).status == UNKNOWN


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
    for name in ("open,shop", "shop,open", "OPEN", "open/", "open#", ""):
        assert world.call(nobody, SAY_HELLO, name).status == UNKNOWN, name


def test_a_client_with_a_certificate_of_another_authority_does_not_connect(world: World) -> None:
    assert world.call(Caller(certificate=OTHERS.sign("x", uri=("spiffe://acme/x",))), SAY_HELLO, "open").status == (
        "UNAVAILABLE"
    )


def test_every_refusal_is_in_the_access_log_with_its_reason(world: World) -> None:
    reasons = {}
    callers = {"nobody": CALLERS["nobody"], "a user": CALLERS["a user"], "expired": bearer(WRONG_TOKENS["expired"])}
    for who, caller in callers.items():
        answer = world.call(caller, MANY, "shop", ("request_id", f"logged {who}"))
        assert answer.trailers["request_id"] == f"logged {who}"
    deadline = time.monotonic() + PATIENCE_S
    while len(reasons) < 3 and time.monotonic() < deadline:
        for text in complete_lines(world.folder / "access.log"):
            entry = json.loads(text)
            if entry["request_id"].startswith("logged "):
                reasons[entry["request_id"].removeprefix("logged ")] = (entry["status"], entry["details"])
    assert reasons["nobody"] == (UNKNOWN, "rbac_access_denied_matched_policy[none]")
    assert reasons["a user"] == (DENIED, "rbac_access_denied_matched_policy[none]")
    assert reasons["expired"] == (UNKNOWN, "jwt_authn_access_denied{Jwt_is_expired}")

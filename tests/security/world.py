"""Callers with every kind of credential, and one server with rules for them, which the tests of this folder share."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from greeter_pb2 import HelloReply, HelloRequest

import sdk.testing
from sdk import GrpcOptions
from sdk.access import Access, ApiKey, Certificate, JwtIssuer, Limit, Rule, Token
from sdk.testing._certificates import write_certificate
from tests.security.greeting import ALL, EACH, SAY_HELLO, SERVICE, Mirror, Outer
from tests.security.ruled import Passing, Ruled, RuledSync
from tests.support.certificates import Authority, Pair
from tests.support.loops import PATIENCE_S
from tests.support.tokens import Issuer

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
    # Two for the same calls.
    Rule(ApiKey("batch"), applications=("shop",), methods=(SERVICE,)),
    Rule(Certificate("spiffe://acme/*"), applications=("shop",), methods=(SERVICE,)),
    Rule([ApiKey("*"), Certificate("*.acme.org")], methods=(f"{SERVICE}/SayHelloInManyTongues",)),
    # `allow` of the last three decides.
    Rule("anyone", applications=("open", "limited", "full", "ruled", "ruled-sync", "passing")),
    Rule("authenticated", methods=("ray.serve.RayServeAPIService",)),
)
OK, DENIED, UNKNOWN = "OK", "PERMISSION_DENIED", "UNAUTHENTICATED"


@dataclass
class Answer:
    status: str
    details: str = ""
    trailers: dict[str, str | bytes] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)


class World:
    """The server, and a channel for each certificate."""

    def __init__(self, server: sdk.testing.Server, folder: Path, authority: bytes) -> None:
        self.server, self.folder, self.authority = server, folder, authority
        self._channels: dict[Pair | None, grpc.Channel] = {}

    @property
    def port(self) -> int:
        """The port that Envoy listens on."""
        return int(self.server.target.rpartition(":")[2])

    @property
    def admin_socket(self) -> Path:
        """Path of the socket of Envoy's admin interface."""
        return self.server._running.ingress._folder / "admin.sock"

    def channel(self, certificate: Pair | None = None) -> grpc.Channel:
        if certificate not in self._channels:
            credentials = grpc.ssl_channel_credentials(
                self.authority, certificate and certificate.key, certificate and certificate.certificate
            )
            self._channels[certificate] = self.server.channel(
                credentials=credentials, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
            )
        return self._channels[certificate]

    def ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Make a request as a browser does, and return HTTP status, headers and body of the response."""
        trust = ssl.create_default_context(cadata=self.authority.decode())
        trust.check_hostname = False
        connection = http.client.HTTPSConnection(self.server.target, timeout=PATIENCE_S, context=trust)
        try:
            connection.request("POST", path, body, dict(headers))
            response = connection.getresponse()
            return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
        finally:
            connection.close()

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


@contextlib.contextmanager
def serving() -> Iterator[World]:
    """Serve every application of these tests."""
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
                JwtIssuer(ISSUER.name, ISSUER.jwks, audiences=("shop",), clock_skew_s=60),
                JwtIssuer(PARTNER.name, str(folder / "partner.json"), claims=("sub", "iss")),
            ),
            api_keys=str(keys),
            rules=RULES,
            limits=(
                Limit(0.001, burst=1, applications=("limited",)),
                Limit(calls_at_once=1, applications=("full",)),
            ),
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
        targets |= {
            "ruled": Ruled.bind(),
            "ruled-sync": RuledSync.bind(),
            "passing": Passing.bind(Ruled.options(expose=False).bind()),
        }
        targets |= {"limited": Mirror.bind(), "full": Mirror.bind()}
        with sdk.testing.serve(targets, options=options) as server:
            yield World(server, folder, Path(certificate).read_bytes())

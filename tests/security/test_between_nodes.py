"""Calls from another node, which come over TCP: with nothing, with the secret of Ray's token, and with mutual TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from google.protobuf.wrappers_pb2 import StringValue

from sdk._channel import replicas
from sdk._channel.feed import Address
from sdk._channel.replicas import Subchannel
from sdk._guard.between_nodes import UNGUARDED, BetweenNodes, between_nodes, own_between_nodes
from sdk._replica_protocol import API_KEY_HEADER, HEALTH_CHECK_PATH, NODE_SECRET_HEADER, TOKEN_HEADER
from sdk._serve import api
from sdk._wire.server import WireServer
from sdk._xds.access_filters import KeyMaterial
from sdk._xds.resources import build_resources
from sdk._xds.snapshot import Endpoint, Snapshot
from sdk._xds.tls import write_node_secrets
from sdk.access import Access, JwtIssuer, Rule
from sdk.context import ServicerContext
from sdk.errors import IngressError
from sdk.options import GrpcOptions
from sdk.service import Cardinality, Method, MethodBinding
from tests.support.certificates import Authority
from tests.support.envoy_rig import Rig, rig
from tests.support.loops import PATIENCE_S
from tests.support.tokens import Issuer, encode

PATH = "/demo.Greeter/WhoAmI"
APPS: Any = {"one": {"Greeter": (["demo.Greeter"], ["replica"])}}
TOKEN = between_nodes({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "the token of Ray"})
NODES, STRANGERS = Authority("nodes"), Authority("strangers")
ISSUER = Issuer("https://id.example.org")
FORGED = {
    API_KEY_HEADER: "admin",
    TOKEN_HEADER: encode(json.dumps({"iss": "x", "sub": "admin"}).encode()),
    "x-forwarded-proto": "https",
    "x-forwarded-client-cert": "Subject=admin",
}


async def who_am_i(request: StringValue, grpc_context: ServicerContext) -> StringValue:
    seen = [grpc_context.peer_identity_key(), sorted(grpc_context.auth_context()), dict(grpc_context.claims())]
    return StringValue(value=json.dumps([*seen, [key for key, _ in grpc_context.invocation_metadata()]]))


def who_am_i_binding() -> MethodBinding:
    method = Method("WhoAmI", "who_am_i", PATH, Cardinality.UNARY_UNARY, StringValue, StringValue)
    return MethodBinding(method, who_am_i)


@asynccontextmanager
async def serving(guard: BetweenNodes) -> AsyncIterator[int]:
    server = WireServer([who_am_i_binding()], guard=guard)
    yield await server.listen("127.0.0.1")
    await server.drain(quiet_s=0, grace_s=0)


def mutual_tls(folder: Path, authority: Authority = NODES) -> BetweenNodes:
    folder.mkdir(exist_ok=True)
    certificate, key = authority.sign("node").write(folder, "node")
    (folder / "ca.crt").write_bytes(NODES.certificate)
    return BetweenNodes("tls", certificate, key, str(folder / "ca.crt"))


async def ask(port: int, headers: dict[str, str], context: ssl.SSLContext | None = None, method: str = "POST") -> bytes:
    """Return the raw response to a call, or an empty one if the connection ends without."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    path = PATH if method == "POST" else HEALTH_CHECK_PATH
    lines = [f"{method} {path} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in headers.items())]
    if method == "POST":
        lines += ["content-type: application/grpc", "transfer-encoding: chunked", "connection: close"]
    body = b"5\r\n" + struct.pack(">BI", 0, 0) + b"\r\n0\r\n\r\n" if method == "POST" else b""
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    try:
        ended = b"\r\n\r\n" if method == "GET" else b"request_id: "
        return await asyncio.wait_for(reader.readuntil(ended), PATIENCE_S)
    except asyncio.IncompleteReadError as error:
        return error.partial
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        writer.transport.abort()  # the end of TLS would take turns of the loop, which may close before


def seen(response: bytes) -> Any:
    return json.loads(response[response.index(b"[") : response.rindex(b"]") + 1])


async def test_without_a_guard_a_neighbour_is_nobody() -> None:
    async with serving(UNGUARDED) as port:
        assert seen(await ask(port, FORGED)) == [None, [], {}, []]
        assert seen(await ask(port, {**FORGED, NODE_SECRET_HEADER: "x"})) == [None, [], {}, []]


@pytest.mark.parametrize("secret", [None, "", "0" * 64, TOKEN.secret[:-1], TOKEN.secret + "0", "the token of Ray"])
async def test_without_the_secret_a_neighbour_is_refused(secret: str | None) -> None:
    async with serving(TOKEN) as port:
        given = {} if secret is None else {NODE_SECRET_HEADER: secret}
        for headers in (given, {**FORGED, **given}):
            response = await ask(port, headers)
            assert response.startswith(b"HTTP/1.1 403 Forbidden\r\n")
            assert TOKEN.secret.encode() not in response
        alive = await ask(port, given, method="GET")
        assert alive.startswith(b"HTTP/1.1 200 OK"), "Envoy's health check has no secret, and tells nothing"


async def test_with_the_secret_its_headers_are_believed() -> None:
    async with serving(TOKEN) as port:
        key, auth, claims, metadata = seen(await ask(port, {**FORGED, NODE_SECRET_HEADER: TOKEN.secret}))
        assert (key, claims["sub"]) == ("token_subject", "admin")
        assert "api_key_name" in auth
        assert metadata == [], "the secret is not metadata"


async def test_a_caller_says_once_that_it_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(TOKEN) as port:
        for guard, is_accepted in ((TOKEN, True), (replace(TOKEN, secret="0" * 64), False), (UNGUARDED, False)):
            monkeypatch.setattr(replicas, "own_between_nodes", lambda guard=guard: guard)
            caller = Subchannel(Address("r", "127.0.0.1", port, "elsewhere"), is_local=False)
            if is_accepted:
                (await caller.connect()).close()
            else:
                with pytest.raises(OSError, match=r".*"):
                    await caller.connect()


async def test_mutual_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = mutual_tls(tmp_path / "ours"), mutual_tls(tmp_path / "theirs", STRANGERS)
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    without.check_hostname, without.verify_mode = False, ssl.CERT_NONE
    stranger = theirs.client_context()
    assert stranger is not None
    async with serving(ours) as port:
        assert seen(await ask(port, FORGED, ours.client_context()))[0] == "token_subject"
        for context in (None, without, stranger):
            assert await ask(port, FORGED, context) == b""
        monkeypatch.setattr(replicas, "own_between_nodes", lambda: ours)
        caller = Subchannel(Address("r", "127.0.0.1", port, "elsewhere"), is_local=False)
        (await caller.connect()).close()


def write(folder: Path, name: str, data: bytes) -> None:
    """Replace a file at once, as certificate managers do."""
    new = folder / f"{name}.new"
    new.write_bytes(data)
    new.rename(folder / name)


async def connects(guard: BetweenNodes, port: int) -> bool:
    """Return True if a caller of another node can call the replica."""
    try:
        return await ask(port, FORGED, guard.client_context()) != b""
    except ssl.SSLCertVerificationError:
        return False


async def test_a_replica_uses_new_certificates_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """First both authorities are trusted, then there are certificates of the new one, then only that is trusted."""
    next_one = Authority("next")
    folder = tmp_path / "ours"
    ours = mutual_tls(folder)
    old = mutual_tls(tmp_path / "old")
    new = mutual_tls(tmp_path / "new", next_one)
    write(tmp_path / "new", "ca.crt", next_one.certificate + NODES.certificate)
    async with serving(ours) as port:
        assert await connects(old, port)
        assert not await connects(new, port)
        write(folder, "ca.crt", NODES.certificate + next_one.certificate)
        assert await connects(old, port)
        assert await connects(new, port)
        (folder / "node.key").write_bytes(b"half")
        assert await connects(old, port), "the last ones stay in force"
        assert "the last ones stay in force" in caplog.text
        next_one.sign("node").write(folder, "node")
        assert await connects(new, port)
        assert not await connects(old, port), "it does not know the certificate of the replica"
        write(folder, "ca.crt", next_one.certificate)
        write(tmp_path / "old", "ca.crt", next_one.certificate + NODES.certificate)
        assert not await connects(old, port), "the replica no longer trusts its authority"
        assert await connects(new, port)


async def test_envoy_uses_new_certificates_without_a_failed_call(tmp_path: Path) -> None:
    next_one, folder = Authority("next"), tmp_path / "ours"
    guard = mutual_tls(folder)
    async with behind_envoy(guard) as it:
        await asyncio.wait_for(it.ads.publish(build_resources(it.snapshot(APPS), it.config)), PATIENCE_S)
        await through_envoy(it)

        async def until_it_has(certificate: bytes) -> None:
            """Call until Envoy has loaded a certificate. No call fails."""
            pattern = f"{x509.load_pem_x509_certificate(certificate).serial_number:x}"
            async with asyncio.timeout(PATIENCE_S):
                while pattern not in await it.admin("/certs"):
                    await through_envoy(it)

        both = NODES.certificate + next_one.certificate
        write(folder, "ca.crt", both)
        pair = next_one.sign("node")
        await until_it_has(next_one.certificate)
        pair.write(folder, "node")
        await until_it_has(pair.certificate)
        await through_envoy(it)


@asynccontextmanager
async def behind_envoy(guard: BetweenNodes) -> AsyncIterator[Rig]:
    async with serving(guard) as port, rig() as it:
        endpoint = Endpoint("replica", "127.0.0.1", port)
        it.upstreams["replica"] = type("Replica", (), {"endpoint": endpoint})  # type: ignore[assignment]
        it.config = replace(it.config, guard=guard)
        if guard.mode == "tls":
            it.config = replace(it.config, node_secrets=str(it.folder / "secrets"))
            write_node_secrets(guard, it.config.node_secrets)
        yield it


async def through_envoy(it: Rig, *metadata: tuple[str, str]) -> Any:
    method: Any = it.channel.unary_unary(
        PATH, request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
    )
    answer = await method(StringValue(), metadata=metadata, timeout=PATIENCE_S, wait_for_ready=True)
    return json.loads(answer.value)


@pytest.mark.parametrize("kind", ["none", "token", "tls"])
async def test_envoy_reaches_replicas_on_other_nodes(kind: str, tmp_path: Path) -> None:
    guard = {"none": UNGUARDED, "token": TOKEN, "tls": mutual_tls(tmp_path / "ours")}[kind]
    access = Access(issuers=(JwtIssuer(ISSUER.name, ISSUER.jwks),), rules=(Rule("authenticated"),))
    async with behind_envoy(guard) as it:
        snapshot = replace(it.snapshot(APPS), access=access)
        keys = KeyMaterial({ISSUER.name: ISSUER.jwks})
        await asyncio.wait_for(it.ads.publish(build_resources(snapshot, it.config, keys)), PATIENCE_S)
        token = ("authorization", f"Bearer {ISSUER.token()}")
        forged = (NODE_SECRET_HEADER, "0" * 64)
        for metadata in ((token,), (token, forged)):
            key, _, claims, names = await through_envoy(it, *metadata)
            assert names == ["user-agent"]
            if kind == "none":
                assert (key, claims) == (None, {}), "the replica can't know that it was Envoy"
            else:
                assert (key, claims["sub"]) == ("token_subject", "ann")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RAY_USE_TLS": "1"}, "RAY_USE_TLS is set, but not RAY_TLS_SERVER_CERT, RAY_TLS_SERVER_KEY, RAY_TLS_CA_CERT"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/none/token"}, "/none/token can't be read: no such file"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": " "}, "the token is empty"),
    ],
)
def test_incomplete_switches_of_ray(environment: dict[str, str], said: str) -> None:
    with pytest.raises(IngressError, match=said):
        between_nodes(environment)


def test_the_secret_is_derived_from_the_token_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the token of Ray\n")
    same = between_nodes({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert same == TOKEN
    assert "token of Ray" not in TOKEN.secret
    assert TOKEN.secret not in repr(TOKEN)
    assert between_nodes({"RAY_AUTH_MODE": "disabled", "RAY_USE_TLS": "0"}) == UNGUARDED


async def test_calls_go_on_when_the_file_of_rays_token_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself keeps the token that a process has read: it can't rotate it while a cluster runs."""
    path = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    path.touch()
    with pytest.raises(IngressError, match=r"\S+/token is empty"):
        own_between_nodes()
    path.write_text("first\n")
    guard = own_between_nodes()
    async with serving(guard) as port:
        for text in ("second\n", "", None):
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
            assert own_between_nodes() == guard
            caller = Subchannel(Address("r", "127.0.0.1", port, "elsewhere"), is_local=False)
            (await caller.connect()).close()


@pytest.mark.parametrize(
    ("nodes", "access", "environment", "is_named"),
    [
        (2, Access(issuers=(JwtIssuer(ISSUER.name, ISSUER.jwks),)), {}, True),
        (2, Access(issuers=(JwtIssuer(ISSUER.name, ISSUER.jwks),)), {"RAY_AUTH_MODE": "token"}, False),
        (1, Access(issuers=(JwtIssuer(ISSUER.name, ISSUER.jwks),)), {}, False),
        (2, None, {}, False),
    ],
)
def test_the_status_says_that_nothing_guards_calls_between_nodes(
    nodes: int, access: Access | None, environment: dict[str, str], is_named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingress = SimpleNamespace(options=GrpcOptions(access=access), snapshot=Snapshot(7))
    for name in ("RAY_AUTH_MODE", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RAY_AUTH_TOKEN": "x", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(api, "_connect", lambda **_: None)
    monkeypatch.setattr(api, "find_controller", lambda: SimpleNamespace(status=None))
    monkeypatch.setattr(api, "_call", lambda _: ingress)
    monkeypatch.setattr(api, "application_overviews", dict)
    monkeypatch.setattr(api, "combine", lambda *_: ((), (SimpleNamespace(),) * nodes))
    found = api.status()
    assert found.version == 7
    assert ("Start Ray with RAY_AUTH_MODE=token or RAY_USE_TLS=1" in found.problem) == is_named

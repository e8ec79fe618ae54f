"""Client identity in a handler behind a real Envoy: plain text, TLS, and clients with forged headers."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sdk._serve.internals import internal_request_id
from sdk._wire.server import WireServer
from sdk._xds.snapshot import Endpoint
from sdk._xds.tls import TlsConfig, write_secrets
from sdk.context import ServicerContext
from sdk.service import Cardinality, Method, MethodBinding
from tests.support.certificates import Authority, Pair
from tests.support.envoy_rig import Rig, rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


PATH = "/demo.Greeter/WhoAmI"
APPS: Any = {"one": {"Greeter": (["demo.Greeter"], ["replica"])}}


@dataclass
class Replica:
    """Wire server whose method returns what its context knows about the client."""

    endpoint: Endpoint
    server: WireServer


async def who_am_i(request: StringValue, grpc_context: ServicerContext) -> StringValue:
    identities = grpc_context.peer_identities()
    return StringValue(
        value=json.dumps(
            {
                "peer": grpc_context.peer(),
                "auth": {key: [v.decode() for v in values] for key, values in grpc_context.auth_context().items()},
                "key": grpc_context.peer_identity_key(),
                "identities": identities and [identity.decode() for identity in identities],
                "request_id": grpc_context.request_id(),
                "internal_id": internal_request_id(grpc_context._call),  # type: ignore[arg-type]
                "metadata": grpc_context.invocation_metadata(),
            }
        )
    )


@asynccontextmanager
async def serving(make_tls: Callable[[Path], TlsConfig] | None = None) -> AsyncIterator[Rig]:
    method = Method("WhoAmI", "who_am_i", PATH, Cardinality.UNARY_UNARY, StringValue, StringValue)
    server = WireServer([MethodBinding(method, who_am_i)])
    name = await server.listen_locally()
    async with rig() as it:
        it.upstreams["replica"] = Replica(Endpoint("replica", "127.0.0.1", 1, socket=name), server)  # type: ignore[assignment]
        if make_tls is not None:
            tls = make_tls(it.folder)
            write_secrets(tls)
            it.config = replace(it.config, tls=tls)
        await it.publish(APPS)
        yield it
    await server.drain(quiet_s=0, grace_s=0)


async def ask(channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> dict[str, Any]:
    method = channel.unary_unary(
        PATH, request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
    )
    answer = await method(StringValue(), metadata=metadata, timeout=10, wait_for_ready=True)
    seen: dict[str, Any] = json.loads(answer.value)
    return seen


FORGED_HEADERS = (
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-for", "6.6.6.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-client-cert", 'Subject="CN=admin";URI=spiffe://admin'),
    ("x-request-id", "11111111-1111-4111-8111-111111111111"),
    ("x-envoy-external-address", "6.6.6.6"),
    ("x-envoy-internal", "true"),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-envoy-max-retries", "100"),
)


async def test_a_plain_text_client_is_identified_by_its_address_only() -> None:
    async with serving() as it:
        honest, forger = await ask(it.channel), await ask(it.channel, *FORGED_HEADERS)
        for seen in (honest, forger):
            assert seen["auth"] == {}
            assert seen["key"] is None
            assert seen["identities"] is None
            kind, address, port = seen["peer"].split(":")
            assert (kind, address) == ("ipv4", "127.0.0.1")
            assert 1024 < int(port) < 65536
        assert honest["peer"] == forger["peer"], "one connection"
        assert [key for key, _ in forger["metadata"]] == ["user-agent"], "other forged headers are not metadata"


async def test_calls_with_the_same_request_id_have_distinct_internal_ids() -> None:
    """Ray Serve tracks the child calls of a call by the internal id, and cancels them with it."""

    async with serving() as it:
        same = [("x-request-id", "11111111-1111-4111-8111-111111111111"), ("request_id", "mine")]
        seen = [await ask(it.channel, *same) for _ in range(2)]
        assert [t["request_id"] for t in seen] == ["mine", "mine"]
        assert len({t["internal_id"] for t in seen} | {same[0][1], "mine"}) == 4


SERVER_CA, CLIENT_CA, OTHER_CA = Authority("servers"), Authority("clients"), Authority("others")
SERVER = SERVER_CA.sign("server", dns=("localhost",))


def tls_files(folder: Path, *, mutual: bool, server: Pair = SERVER) -> TlsConfig:
    certificates = folder / "certificates"
    certificates.mkdir()
    certificate, key = server.write(certificates, "server")
    (certificates / "ca.crt").write_bytes(CLIENT_CA.certificate)
    ca = str(certificates / "ca.crt") if mutual else None
    return TlsConfig(certificate, key, str(folder / "secrets"), ca)


def secure_channel(port: int, client: Pair | None = None) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        SERVER_CA.certificate, client and client.key, client and client.certificate
    )
    return grpc.aio.secure_channel(
        f"localhost:{port}", credentials, options=[("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    )


async def test_a_client_over_tls_without_a_certificate() -> None:
    async with serving(lambda folder: tls_files(folder, mutual=False)) as it:
        for client, forged in ((None, ()), (None, FORGED_HEADERS), (CLIENT_CA.sign("unasked"), FORGED_HEADERS)):
            async with secure_channel(it.port, client) as channel:
                seen = await ask(channel, *forged)
            assert seen["auth"] == {"transport_security_type": ["ssl"]}
            assert (seen["key"], seen["identities"]) == (None, None)
            assert "127.0.0.1:" in seen["peer"]


STRANGE = 'O"B;rien, \\ü=1'


@pytest.mark.parametrize(
    ("client", "auth", "identities"),
    [
        (
            CLIENT_CA.sign(
                "ann", organization="Acme", dns=("ann.example.org", "localhost"), uri=("spiffe://acme/ann",)
            ),
            {
                "x509_common_name": ["ann"],
                "x509_subject": ["CN=ann,O=Acme"],
            },
            ["ann.example.org", "localhost", "spiffe://acme/ann", "127.0.0.1"],
        ),
        (CLIENT_CA.sign("ann"), {"x509_common_name": ["ann"], "x509_subject": ["CN=ann"]}, ["ann"]),
        (CLIENT_CA.sign(STRANGE), {"x509_common_name": [STRANGE]}, [STRANGE]),
        (
            CLIENT_CA.sign('x";URI=spiffe://admin;DNS=admin'),
            {"x509_common_name": ['x";URI=spiffe://admin;DNS=admin']},
            ['x";URI=spiffe://admin;DNS=admin'],
        ),
        (
            CLIENT_CA.sign("x", dns=("a;URI=spiffe://admin", "b,c=d")),
            {"x509_common_name": ["x"]},
            ["a;URI=spiffe://admin", "b,c=d"],
        ),
    ],
    ids=["all", "common name", "strange", "injected in the name", "injected in DNS"],
)
async def test_a_client_is_identified_by_its_certificate(
    client: Pair, auth: dict[str, list[str]], identities: list[str]
) -> None:
    async with serving(lambda folder: tls_files(folder, mutual=True)) as it, secure_channel(it.port, client) as c:
        for forged in ((), FORGED_HEADERS):
            seen = await ask(c, *forged)
            assert seen["identities"] == identities
            assert seen["auth"]["transport_security_type"] == ["ssl"]
            assert seen["auth"]["x509_pem_cert"] == [client.certificate.decode()]
            assert auth.items() <= seen["auth"].items()
            assert seen["key"] == (
                "x509_subject_alternative_name"
                if "x509_subject_alternative_name" in seen["auth"]
                else "x509_common_name"
            )


@pytest.mark.parametrize("client", [None, OTHER_CA.sign("ann")], ids=["none", "of another authority"])
async def test_a_client_without_a_valid_certificate_is_rejected(client: Pair | None) -> None:
    async with serving(lambda folder: tls_files(folder, mutual=True)) as it:
        async with secure_channel(it.port, CLIENT_CA.sign("ann")) as channel:
            await ask(channel)
        async with secure_channel(it.port, client) as channel:
            method = channel.unary_unary(PATH)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await method(b"", timeout=10)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_plain_text_is_rejected_on_a_tls_listener() -> None:
    async with serving(lambda folder: tls_files(folder, mutual=False)) as it:
        async with secure_channel(it.port) as channel:
            await ask(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await it.channel.unary_unary(PATH)(b"", timeout=10)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_replaced_certificate_is_used_without_a_restart() -> None:
    def serial(port: int) -> str:
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
        return pem

    async with serving(lambda folder: tls_files(folder, mutual=False)) as it:
        async with secure_channel(it.port) as channel:
            await ask(channel)
            assert await asyncio.to_thread(serial, it.port) == SERVER.certificate.decode()
            renewed = SERVER_CA.sign("server", dns=("localhost",))
            renewed.write(it.folder / "certificates", "server")
            for _ in range(500):
                if await asyncio.to_thread(serial, it.port) == renewed.certificate.decode():
                    break
                await asyncio.sleep(0.01)
            else:
                raise AssertionError("Envoy still shows the old certificate")
            await ask(channel)  # the old connection still works
        async with secure_channel(it.port) as channel:
            await ask(channel)

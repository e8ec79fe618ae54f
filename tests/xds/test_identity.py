"""Who calls, as a handler sees it behind a real Envoy: over plain text and TLS, and with a client that lies."""

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
from certificates import Authority, Pair
from envoy_rig import Rig, rig
from google.protobuf.wrappers_pb2 import StringValue

from sdk._serve.internals import internal_request_id
from sdk._wire.server import WireServer
from sdk._xds.snapshot import Endpoint
from sdk._xds.tls import TlsConfig, write_secrets
from sdk.context import ServicerContext
from sdk.service import Cardinality, Method, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from loops import Run

PATH = "/demo.Greeter/WhoAmI"
APPS: Any = {"one": {"Greeter": (["demo.Greeter"], ["replica"])}}


@dataclass
class Replica:
    """A wire server whose one method tells what its context says of the client."""

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
    server = WireServer([Row(method, who_am_i)])
    port = await server.listen("127.0.0.1")
    async with rig() as it:
        it.upstreams["replica"] = Replica(Endpoint("replica", "127.0.0.1", port), server)  # type: ignore[assignment]
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
    told: dict[str, Any] = json.loads(answer.value)
    return told


LIES = (
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


def test_a_client_over_plain_text_is_its_address_whatever_it_says(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as it:
            honest, liar = await ask(it.channel), await ask(it.channel, *LIES)
            for told in (honest, liar):
                assert told["auth"] == {}
                assert told["key"] is None
                assert told["identities"] is None
                kind, address, port = told["peer"].split(":")
                assert (kind, address) == ("ipv4", "127.0.0.1")
                assert 1024 < int(port) < 65536
            assert honest["peer"] == liar["peer"], "one connection"
            assert [key for key, _ in liar["metadata"]] == ["user-agent"], "the headers of others are no metadata"

    run(scenario())


def test_calls_that_claim_one_request_id_are_kept_apart(run: Run) -> None:
    """Ray Serve keeps the children of a call by this id, and cancels them with it."""

    async def scenario() -> None:
        async with serving() as it:
            same = [("x-request-id", "11111111-1111-4111-8111-111111111111"), ("request_id", "mine")]
            told = [await ask(it.channel, *same) for _ in range(2)]
            assert [t["request_id"] for t in told] == ["mine", "mine"]
            assert len({t["internal_id"] for t in told} | {same[0][1], "mine"}) == 4

    run(scenario())


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


def test_a_client_over_tls_without_a_certificate(run: Run) -> None:
    async def scenario() -> None:
        async with serving(lambda folder: tls_files(folder, mutual=False)) as it:
            for client, lies in ((None, ()), (None, LIES), (CLIENT_CA.sign("unasked"), LIES)):
                async with secure_channel(it.port, client) as channel:
                    told = await ask(channel, *lies)
                assert told["auth"] == {"transport_security_type": ["ssl"]}
                assert (told["key"], told["identities"]) == (None, None)
                assert "127.0.0.1:" in told["peer"]

    run(scenario())


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
def test_a_client_with_a_certificate_is_whom_it_names(
    run: Run, client: Pair, auth: dict[str, list[str]], identities: list[str]
) -> None:
    async def scenario() -> None:
        async with serving(lambda folder: tls_files(folder, mutual=True)) as it, secure_channel(it.port, client) as c:
            for lies in ((), LIES):
                told = await ask(c, *lies)
                assert told["identities"] == identities
                assert told["auth"]["transport_security_type"] == ["ssl"]
                assert told["auth"]["x509_pem_cert"] == [client.certificate.decode()]
                assert auth.items() <= told["auth"].items()
                assert told["key"] == (
                    "x509_subject_alternative_name"
                    if "x509_subject_alternative_name" in told["auth"]
                    else "x509_common_name"
                )

    run(scenario())


@pytest.mark.parametrize("client", [None, OTHER_CA.sign("ann")], ids=["none", "of another authority"])
def test_a_client_without_a_certificate_of_ours_is_refused(run: Run, client: Pair | None) -> None:
    async def scenario() -> None:
        async with serving(lambda folder: tls_files(folder, mutual=True)) as it:
            async with secure_channel(it.port, CLIENT_CA.sign("ann")) as channel:
                await ask(channel)
            async with secure_channel(it.port, client) as channel:
                method = channel.unary_unary(PATH)
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await method(b"", timeout=10)
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    run(scenario())


def test_plain_text_is_refused_where_tls_is_spoken(run: Run) -> None:
    async def scenario() -> None:
        async with serving(lambda folder: tls_files(folder, mutual=False)) as it:
            async with secure_channel(it.port) as channel:
                await ask(channel)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await it.channel.unary_unary(PATH)(b"", timeout=10)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    run(scenario())


def test_a_certificate_that_is_replaced_is_used_without_a_restart(run: Run) -> None:
    def serial(port: int) -> str:
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
        return pem

    async def scenario() -> None:
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
                await ask(channel)  # the connection is the old one, and lives
            async with secure_channel(it.port) as channel:
                await ask(channel)

    run(scenario())

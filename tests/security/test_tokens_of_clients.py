"""Tokens that expire while clients run: the functions of generated clients, and the options of ``sdk call``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from greeter_pb2 import HelloReply, HelloRequest
from greeter_sdk import GreeterClient, GreeterSyncClient

import sdk.testing
from sdk import GrpcOptions
from sdk.access import Access, JwtIssuer, Rule
from sdk.cli.console.command import console
from sdk.cli.main import main
from sdk.cli.rpc.application_names import application_names
from sdk.cli.rpc.connection import connect
from sdk.errors import ServerError
from tests.security.greeting import SERVICE, Mirror
from tests.support.tokens import Issuer

ISSUER = Issuer("https://id.example.org")
EXPIRED = ISSUER.token(exp=int(time.time()) - 3600)


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    """Serve clients with a token only, over TLS."""
    access = Access(
        issuers=(JwtIssuer(ISSUER.name, ISSUER.jwks),), rules=(Rule("authenticated"),), open=("reflection",)
    )
    with sdk.testing.serve(Mirror.bind(), options=GrpcOptions(access=access), tls=True) as server:
        yield server


def test_a_sync_client_asks_its_function_for_each_call(server: sdk.testing.Server) -> None:
    tokens = iter((EXPIRED, ISSUER.token(sub="ann"), ISSUER.token(sub="bob")))
    with GreeterSyncClient(server.target, credentials=server.credentials, token=lambda: next(tokens)) as client:
        with pytest.raises(grpc.RpcError, match="Jwt is expired"):
            client.SayHello(HelloRequest())
        assert [subject(client.SayHello(HelloRequest()).text) for _ in range(2)] == ["ann", "bob"]


async def test_an_async_client_asks_its_function_for_each_call(server: sdk.testing.Server) -> None:
    tokens = iter((EXPIRED, ISSUER.token(sub="ann"), ISSUER.token(sub="bob")))
    async with GreeterClient(server.target, credentials=server.credentials, token=lambda: next(tokens)) as client:
        with pytest.raises(grpc.aio.AioRpcError, match="Jwt is expired"):
            await client.SayHello(HelloRequest())
        assert [subject((await client.SayHello(HelloRequest())).text) for _ in range(2)] == ["ann", "bob"]


def test_sdk_call_reads_a_rotated_file_again(server: sdk.testing.Server, tmp_path: Path) -> None:
    file, authority = tmp_path / "token", server._running.options.tls_certificate
    assert authority is not None

    def call(*token: str) -> tuple[int, str]:
        options = ["--tls-ca", authority, *token]
        done = CliRunner().invoke(main, ["call", server.target, f"{SERVICE}/SayHello", *options])
        if done.stdout:
            return done.exit_code, subject(json.loads(done.stdout)["text"])
        return done.exit_code, "Jwt is expired" if "Jwt is expired" in done.stderr else done.stderr.split(":")[0]

    assert call() == (1, "UNAUTHENTICATED")
    assert call("--token", ISSUER.token(sub="ann")) == (0, "ann")
    for token, answer in (
        (EXPIRED, (2, "Jwt is expired")),  # reflection is refused, too
        (ISSUER.token(sub="bob"), (0, "bob")),
        (ISSUER.token(sub="eve"), (0, "eve")),
    ):
        file.write_text(f"{token}\n")
        assert call("--token-file", str(file)) == answer


def test_a_console_that_runs_reads_a_rotated_file_again(server: sdk.testing.Server, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(ISSUER.token(sub="ann"))
    arguments = [server.target, "--tls-ca", str(server._running.options.tls_certificate), "--token-file", str(file)]
    context = console.make_context("console", arguments)
    options = {name: value for name, value in context.params.items() if name not in ("target", "port", "address")}
    with (connection := connect(server.target, options)).client as client:
        greet = client.channel.unary_unary(
            f"/{SERVICE}/SayHello", HelloRequest.SerializeToString, HelloReply.FromString
        )
        assert subject(greet(HelloRequest()).text) == "ann"
        file.write_text(ISSUER.token(sub="bob"))
        assert subject(greet(HelloRequest()).text) == "bob"
        file.write_text(EXPIRED)
        with pytest.raises(ServerError, match="Jwt is expired"):
            application_names(connection)


def subject(text: str) -> str:
    """Return ``sub`` of the claims that a handler has seen."""
    return str(json.loads(text)["claims"]["sub"])

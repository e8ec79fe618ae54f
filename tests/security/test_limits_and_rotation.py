"""Limits, keys that change while the server runs, and the configuration of docs/operations/security.md."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # they have no types
from greeter_pb2 import HelloReply, HelloRequest

import sdk.testing
from sdk import GrpcOptions
from sdk.access import Access, JwtIssuer, Limit, Rule, Token, access_from
from sdk.options import GrpcOptions as Options
from tests.security.greeting import EACH, MANY, SAY_HELLO, SERVICE, Mirror
from tests.support.certificates import Authority, Pair
from tests.support.loops import PATIENCE_S
from tests.support.raw_http2 import connect
from tests.support.tokens import Issuer

ISSUER = Issuer("https://id.example.org")


def say_hello(server: sdk.testing.Server, *metadata: tuple[str, str], path: str = SAY_HELLO) -> tuple[str, Any]:
    method = server.channel().unary_stream(path, HelloRequest.SerializeToString, HelloReply.FromString)
    call = method(HelloRequest(), metadata=metadata, timeout=PATIENCE_S)
    with contextlib.suppress(grpc.RpcError):  # its code is that of the call
        list(call)
    return call.code().name, dict(call.trailing_metadata() or ())


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def test_a_limit_of_all_calls() -> None:
    access = Access(limits=(Limit(0.001, burst=3, methods=(f"{SERVICE}/SayHello",)),))
    with sdk.testing.serve(Mirror.bind(), options=GrpcOptions(access=access)) as server:
        answers = [say_hello(server) for _ in range(5)]
        assert [code for code, _ in answers] == ["OK"] * 3 + ["RESOURCE_EXHAUSTED"] * 2
        trailers = answers[-1][1]
        assert trailers["request_id"]
        assert trailers["x-ratelimit-limit"].startswith("3")
        assert trailers["x-ratelimit-remaining"] == "0"
        assert int(trailers["x-ratelimit-reset"]) > 0
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        (detail,) = status.details
        retry = error_details_pb2.RetryInfo()
        assert detail.Unpack(retry)
        assert (status.code, retry.retry_delay.seconds) == (8, 1)
        many = server.channel().unary_stream(MANY, HelloRequest.SerializeToString, HelloReply.FromString)
        call = many(HelloRequest(), timeout=PATIENCE_S)  # another method
        assert list(call)
        names = {key for key, _ in (*call.initial_metadata(), *call.trailing_metadata())}
        assert not any(name.startswith("x-ratelimit") for name in names), "no limit applies to it"


def test_limits_by_identity_and_by_application() -> None:
    access = Access(
        issuers=(JwtIssuer(ISSUER.name, ISSUER.jwks),),
        limits=(
            Limit(0.001, burst=2, per_identity=True),
            Limit(0.001, burst=1, applications=("small",)),
        ),
    )
    with sdk.testing.serve(
        {"one": Mirror.bind(), "small": Mirror.bind()}, options=GrpcOptions(access=access)
    ) as server:
        one, small = ("application", "one"), ("application", "small")
        ann, bob = bearer(ISSUER.token(sub="ann")), bearer(ISSUER.token(sub="bob"))
        other_token = bearer(ISSUER.token(sub="ann", jti="2"))
        assert [say_hello(server, one, ann)[0] for _ in range(2)] == ["OK", "OK"]
        assert say_hello(server, one, other_token)[0] == "RESOURCE_EXHAUSTED", "the same client with another token"
        assert say_hello(server, one, bob)[0] == "OK"
        assert [say_hello(server, one)[0] for _ in range(4)] == ["OK"] * 4, "calls without an identity have no limit"
        assert [say_hello(server, small)[0] for _ in range(2)] == ["OK", "RESOURCE_EXHAUSTED"]


@contextlib.contextmanager
def open_stream(server: sdk.testing.Server, *metadata: tuple[str, str]) -> Iterator[None]:
    """Hold a call to a handler that has begun, on a separate connection."""
    is_over = Event()

    def requests() -> Iterator[HelloRequest]:
        yield HelloRequest()
        is_over.wait(PATIENCE_S)

    with server.channel(options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = channel.stream_stream(EACH, HelloRequest.SerializeToString, HelloReply.FromString)
        call = method(requests(), metadata=metadata, timeout=PATIENCE_S)
        next(call)
        yield
        is_over.set()
        assert list(call) == [], "the call ends as usual"


def test_limits_of_calls_at_once_by_application_method_and_identity() -> None:
    access = Access(
        issuers=(JwtIssuer(ISSUER.name, ISSUER.jwks),),
        limits=(
            Limit(calls_at_once=1, applications=("one",)),
            Limit(calls_at_once=1, applications=("two",), methods=(EACH[1:],)),
            Limit(calls_at_once=1, applications=("three",), per_identity=True),
        ),
    )
    ann, bob = (bearer(ISSUER.token(sub=sub)) for sub in ("ann", "bob"))
    applications = {name: Mirror.bind() for name in ("one", "two", "three")}
    with sdk.testing.serve(applications, options=GrpcOptions(access=access)) as server:

        def answers(application: str, *calls: tuple[str, tuple[tuple[str, str], ...]]) -> list[str]:
            return [say_hello(server, ("application", application), *who, path=path)[0] for path, who in calls]

        with open_stream(server, ("application", "one")):
            assert answers("one", (SAY_HELLO, ()), (SAY_HELLO, (ann,)), (MANY, ())) == ["RESOURCE_EXHAUSTED"] * 3
            assert answers("two", (SAY_HELLO, ())) == ["OK"], "another application"
        assert answers("one", (SAY_HELLO, ())) == ["OK"]
        with open_stream(server, ("application", "two")):
            assert answers("two", (SAY_HELLO, ()), (EACH, ())) == ["OK", "RESOURCE_EXHAUSTED"]
        with open_stream(server, ("application", "three"), ann):
            calls = ((SAY_HELLO, (ann,)), (SAY_HELLO, (bob,)), (SAY_HELLO, ()))
            assert answers("three", *calls) == ["RESOURCE_EXHAUSTED", "OK", "OK"]


async def test_a_connection_has_no_more_streams_than_are_allowed() -> None:
    with sdk.testing.serve(Mirror.bind(), options=GrpcOptions(max_concurrent_streams=2)) as server:
        port = int(server.target.rpartition(":")[2])
        channel = server.channel(options=[("grpc.use_local_subchannel_pool", 1)])
        kept = channel.stream_stream(EACH, HelloRequest.SerializeToString, HelloReply.FromString)
        is_over = Event()

        def requests() -> Iterator[HelloRequest]:
            yield HelloRequest()
            is_over.wait(PATIENCE_S)

        def fill() -> list[Any]:
            calls = [kept(requests(), timeout=PATIENCE_S) for _ in range(2)]
            assert all(map(next, calls))
            return calls

        calls = await asyncio.to_thread(fill)
        hello = channel.unary_unary(SAY_HELLO, HelloRequest.SerializeToString, HelloReply.FromString)
        waiting = hello.future(HelloRequest(), timeout=PATIENCE_S)
        async with connect(port) as greedy:  # does not keep to the limit, as gRPC does
            streams = [greedy.open(EACH) for _ in range(2)]
            third = greedy.start(SAY_HELLO)
            await greedy.wait_ended(third)
            assert third not in greedy.answered
            assert not set(streams) & greedy.answered, "they have sent nothing"
        async with connect(port) as another:
            await another.wait_answered(another.start(SAY_HELLO))
        assert not waiting.done(), "gRPC waits until a stream ends"
        calls[0].cancel()
        assert await asyncio.to_thread(waiting.result)
        is_over.set()
        calls[1].cancel()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)


def key_line(name: str, key: str) -> str:
    return f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"


def test_keys_rotate_without_a_failed_call_and_old_ones_are_refused(tmp_path: Path) -> None:
    new = Issuer(ISSUER.name, "k2")
    jwks, keys = tmp_path / "jwks.json", tmp_path / "keys"
    write(jwks, ISSUER.jwks)
    write(keys, key_line("batch", "first"))
    access = Access(issuers=(JwtIssuer(ISSUER.name, str(jwks)),), api_keys=str(keys), rules=(Rule("authenticated"),))
    old_token, new_token = bearer(ISSUER.token()), bearer(new.token())
    with sdk.testing.serve(Mirror.bind(), options=GrpcOptions(access=access)) as server:
        channel = server.channel()
        method = channel.unary_unary(SAY_HELLO, HelloRequest.SerializeToString, HelloReply.FromString)
        streams = channel.stream_stream(
            f"/{SERVICE}/SayHelloToEach", HelloRequest.SerializeToString, HelloReply.FromString
        )
        is_over = False

        def requests() -> Any:
            while not is_over:
                yield HelloRequest()
                time.sleep(0.01)

        stream = streams(requests(), metadata=[old_token])  # open during the whole rotation
        assert next(stream)
        assert say_hello(server, new_token)[0] == "UNAUTHENTICATED"
        write(jwks, f'{{"keys": [{ISSUER.jwks[10:-2]}, {new.jwks[10:-2]}]}}')
        write(keys, key_line("batch", "first") + key_line("batch", "second"))

        def is_in_force() -> bool:
            method(HelloRequest(), metadata=[old_token], timeout=PATIENCE_S)  # never fails
            method(HelloRequest(), metadata=[("x-api-key", "first")], timeout=PATIENCE_S)
            return all(say_hello(server, each)[0] == "OK" for each in (new_token, ("x-api-key", "second")))

        until(is_in_force)
        write(jwks, "{")  # a mistake: the last valid keys stay
        write(keys, key_line("batch", "second"))
        until(lambda: say_hello(server, ("x-api-key", "first"))[0] == "UNAUTHENTICATED")
        assert say_hello(server, old_token)[0] == "OK"
        write(jwks, new.jwks)
        until(lambda: say_hello(server, old_token)[0] == "UNAUTHENTICATED")
        assert say_hello(server, new_token)[0] == "OK"
        assert next(stream), "the stream that began with the old token goes on"
        is_over = True
        stream.cancel()


def test_certificates_of_the_server_and_of_clients_rotate_without_a_failed_call(tmp_path: Path) -> None:
    servers, next_servers, old, new = (Authority(name) for name in ("servers", "next servers", "old", "new"))
    certificate, key = servers.sign("server", dns=("localhost",)).write(tmp_path, "server")
    write(tmp_path / "ca.crt", old.certificate.decode())
    old_client, new_client = (authority.sign("client", dns=("client",)) for authority in (old, new))
    options = GrpcOptions(
        tls_certificate=certificate, tls_private_key=key, tls_client_ca=str(tmp_path / "ca.crt"), access=Access()
    )
    both = servers.certificate + next_servers.certificate
    with sdk.testing.serve(Mirror.bind(), options=options) as server:

        def connect_as(client: Pair, trusted: bytes = both) -> grpc.Channel:
            credentials = grpc.ssl_channel_credentials(trusted, client.key, client.certificate)
            return server.channel(credentials=credentials, options=[("grpc.use_local_subchannel_pool", 1)])

        def code(channel: grpc.Channel) -> str:
            call = channel.unary_unary(SAY_HELLO, HelloRequest.SerializeToString, HelloReply.FromString)
            future = call.future(HelloRequest(), timeout=PATIENCE_S)
            return str(future.code().name)

        def on_a_new_connection(client: Pair, trusted: bytes = both) -> str:
            with connect_as(client, trusted) as channel:
                return code(channel)

        with connect_as(old_client) as kept:

            def until_ok(client: Pair, trusted: bytes = both) -> None:
                """Connect until this is accepted. What was accepted before is accepted all the time."""
                answers = set[str]()

                def is_accepted() -> bool:
                    answers.update((code(kept), on_a_new_connection(old_client)))
                    return on_a_new_connection(client, trusted) == "OK"

                until(is_accepted)
                assert answers == {"OK"}

            assert code(kept) == "OK"
            assert on_a_new_connection(new_client) == "UNAVAILABLE"
            write(tmp_path / "ca.crt", (old.certificate + new.certificate).decode())
            until_ok(new_client)
            next_servers.sign("server", dns=("localhost",)).write(tmp_path, "server")
            until_ok(new_client, next_servers.certificate)
            write(tmp_path / "ca.crt", new.certificate.decode())
            until(lambda: on_a_new_connection(old_client) == "UNAVAILABLE")
            assert on_a_new_connection(new_client) == code(kept) == "OK", "open connections stay"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    access = Access(api_keys=str(tmp_path / "none"))
    with (
        pytest.raises(sdk.IngressError, match=r"access: .*/none can't be read: no such file"),
        sdk.testing.serve(Mirror.bind(), options=GrpcOptions(access=access)),
    ):
        pass


def test_the_hardened_configuration_of_the_docs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations" / "security.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    write(tmp_path / "jwks.json", ISSUER.jwks)
    write(tmp_path / "api-keys", key_line("batch", "a-key"))
    section = yaml.safe_load(block.replace("/etc/sdk", str(tmp_path)).replace("/var/log/sdk", str(tmp_path)))["sdk"]
    options = Options(**section)
    assert options.access == access_from(section["access"])
    assert options.access is not None
    # With the certificate of the test server, which no client certificate is for.
    options = replace(
        options,
        tls_certificate=None,
        tls_private_key=None,
        tls_client_ca=None,
        access=replace(options.access, rules=options.access.rules),
    )
    with sdk.testing.serve({"shop": Mirror.bind()}, options=options, tls=True) as server:
        user, admin = bearer(ISSUER.token()), bearer(ISSUER.token(roles=["admin"]))
        assert say_hello(server)[0] == "UNAUTHENTICATED"
        assert say_hello(server, user)[0] == "OK"
        assert say_hello(server, user, path=MANY)[0] == "PERMISSION_DENIED"
        assert say_hello(server, admin, path=MANY)[0] == "OK"
        assert say_hello(server, ("x-api-key", "a-key"), path=MANY)[0] == "OK"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"issuers": [{"issuer": "i"}]}, "issuers[0]: 'jwks' is missing"),
        ({"issuers": [{"issuer": "", "jwks": "/x"}]}, "issuers[0]: issuer must be the value of `iss`, not ''"),
        ({"issuers": [{"issuer": "i", "jwks": "keys.json"}]}, "neither an absolute path nor a URL"),
        ({"issuers": [{"issuer": "i", "jwks": '{"keys": []}'}]}, "has no keys"),
        ({"issuers": [{"issuer": "i", "jwks": '{"keys": [{"kty": "oct", "k": "czNjcmV0"}]}'}]}, "has a secret key"),
        ({"issuers": [{"issuer": "i", "jwks": "/x"}] * 2}, "two issuers have the same `issuer`"),
        (
            {"issuers": [{"issuer": "i", "jwks": "/x"}], "api_keys": "/x"},
            "api_keys and an issuer's jwks are the same file",
        ),
        ({"limits": [{"calls_per_s": 1, "applications": ["*"]}]}, "limits[0]: applications must hold whole names"),
        ({"rules": [{"who": "anyone", "applications": ["sh*"]}]}, "rules[0]: applications must hold whole names"),
        ({"rules": [{"who": "everyone"}]}, "rules[0]: who must be 'anyone', 'authenticated', a Token"),
        ({"rules": [{"who": []}]}, "rules[0]: who must name who may call"),
        ({"rules": [{"who": {"token": {}}}]}, "rules[0] allows a Token, but there are no issuers"),
        ({"rules": [{"who": {"api_key": "x"}}]}, "rules[0] allows an ApiKey, but api_keys is not set"),
        ({"rules": [{"who": "anyone", "methods": ["/a/b"]}]}, "rules[0]: methods must hold names such as"),
        ({"rules": [{"who": {"certificate": "a*b*"}}]}, "may have one '*', at its start or its end"),
        ({"rules": [{"whom": "anyone"}]}, "rules[0]: whom unknown; known are who, applications, methods"),
        ({"limits": [{"calls_per_s": 0}]}, "limits[0]: calls_per_s must be a number from 0.001"),
        ({"open": ["everything"]}, "open must hold 'health', 'reflection', 'serve_api'"),
        ({"api_keys": "keys"}, "api_keys must be an absolute path or None, not 'keys'"),
    ],
)
def test_a_wrong_value_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(sdk.OptionsError) as raised:
        GrpcOptions(access=wrong)  # type: ignore[arg-type]  # as config files have it
    assert said in str(raised.value)
    assert "czNjcmV0" not in str(raised.value), "a secret is not shown"


def test_access_is_hashable_and_survives_json() -> None:
    access = Access(
        issuers=(JwtIssuer("i", "/x", claims=("sub",)),),
        rules=(Rule(Token(claims={"a": ("b", "c")})),),
        limits=(Limit(1),),
    )
    assert access_from(access.to_mapping()) == access
    hash(GrpcOptions(access=access))

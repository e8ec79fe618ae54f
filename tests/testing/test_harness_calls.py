"""Calls to a test server: all cardinalities, through a real Envoy, and the answers of a proxy."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from harness_pb2 import Number, Text
from harness_pb2_grpc import GreeterStub
from harness_sdk import DoublerSyncClient, GreeterClient, GreeterSyncClient

import sdk.testing
from sdk import ApplicationError, GrpcOptions, OptionsError
from sdk.testing import Server
from tests.support.certificates import Authority
from tests.testing.harness_apps import Doubler, Greeter, Plain, SyncGreeter

pytestmark = pytest.mark.timeout(60)


def texts(*values: str) -> list[Text]:
    return [Text(text=value) for value in values]


@pytest.mark.parametrize("kind", [Greeter, SyncGreeter])
def test_all_four_kinds_blocking(serving: Callable[..., Any], kind: Any) -> None:
    client = serving(kind.bind()).client(GreeterSyncClient)
    said = "hello" if kind is Greeter else "grpc-handler"
    assert client.SayHello(Text(text="you")).text == f"{said} you"
    assert [one.number for one in client.Count(Number(number=3))] == [0, 1, 2]
    assert client.Sum([Number(number=1), Number(number=2)]).number == 3
    assert [one.text for one in client.Chat(texts("a", "b"))] == ["A", "B"]


async def test_all_four_kinds_async() -> None:
    async with sdk.testing.serve(Greeter.bind("hi")) as server, server.client(GreeterClient) as client:
        assert (await client.SayHello(Text(text="you"))).text == "hi you"
        assert [one.number async for one in client.Count(Number(number=3))] == [0, 1, 2]
        assert (await client.Sum([Number(number=1), Number(number=2)])).number == 3
        chat = client.Chat()
        await chat.write(Text(text="a"))
        assert (await chat.read()).text == "A"
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
        stub = GreeterStub(server.aio_channel())
        assert (await stub.SayHello(Text(text="stub"))).text == "hi stub"


def test_one_loop_after_another(caplog: pytest.LogCaptureFixture) -> None:
    """Each test of pytest-asyncio has a new event loop, separate from the server's."""

    async def main() -> None:
        async with sdk.testing.serve(Greeter.bind()) as server, server.client(GreeterClient) as client:
            await asyncio.gather(*(client.SayHello(Text(text="x")) for _ in range(20)))

    for _ in range(3):
        asyncio.run(main())
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_it_starts_in_well_under_a_second(serving: Callable[..., Any]) -> None:
    # Of the processor, Envoy's included: what else this machine does is not counted.
    took = []
    for _ in range(3):
        began = cpu_seconds()
        with sdk.testing.serve(Greeter.bind()) as server:
            server.client(GreeterSyncClient).SayHello(Text(text="you"))
        took.append(cpu_seconds() - began)
    assert min(took) < 1


def cpu_seconds() -> float:
    """Return the seconds that this process has used, and those of its children that have ended."""
    return sum(os.times()[:4])


def test_the_context_of_a_handler(serving: Callable[..., Any]) -> None:
    server = serving(Greeter.options(name="Renamed").bind())
    reply, call = server.client(GreeterSyncClient, model_id="m1").Tell.with_call(Text(), request_id="r1")
    assert reply.text == "r1 m1 default Renamed"
    assert dict(call.trailing_metadata())["request_id"] == "r1"


def test_a_traceback_begins_in_the_handler(serving: Callable[..., Any]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        serving(Greeter.bind()).client(GreeterSyncClient).Tell(Text(text="fail"))
    details = caught.value.details().splitlines()
    assert "harness_apps.py" in details[1]
    assert details[-1] == "ValueError: asked to fail"


def test_several_applications(serving: Callable[..., Any]) -> None:
    server = serving(Greeter.bind("default"), other=Greeter.bind("other"), doubler=Doubler.bind())
    assert server.applications == ("default", "other", "doubler")
    client = server.client(GreeterSyncClient)
    assert client.SayHello(Text(), application="other").text == "other "
    assert client.SayHello(Text(), application="default").text == "default "
    assert server.client(DoublerSyncClient, application="doubler").Double(Number(number=4)).number == 8
    assert server.instance(Greeter, application="other").greeting == "other"
    assert isinstance(server.instance(Doubler), Doubler)
    with pytest.raises(LookupError, match=r"2 deployments of Greeter are served \(default/Greeter, other/Greeter\)"):
        server.instance(Greeter)
    with pytest.raises(LookupError, match="no deployment of SyncGreeter is served"):
        server.instance(SyncGreeter)


@pytest.fixture(scope="module")
def two_applications() -> Iterator[Server]:
    """Serve a Greeter as `a` and as `b`."""
    with sdk.testing.serve({"a": Greeter.bind(), "b": Greeter.bind()}) as server:
        yield server


@pytest.mark.parametrize(
    ("metadata", "path", "code"),
    [
        ({"application": "nobody"}, "/harness.Greeter/SayHello", grpc.StatusCode.NOT_FOUND),
        ({}, "/harness.Greeter/SayHello", grpc.StatusCode.NOT_FOUND),
        ({"application": "a"}, "/harness.Greeter/SayNothing", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_calls_without_a_route_are_answered_as_a_proxy_does(
    two_applications: Server, metadata: dict[str, str], path: str, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        two_applications.channel().unary_unary(path)(b"", metadata=tuple(metadata.items()))
    assert caught.value.code() is code


def test_the_services_of_a_proxy_answer(serving: Callable[..., Any]) -> None:
    channel = serving(Greeter.bind(), other=Doubler.bind()).channel()
    list_applications = channel.unary_unary("/ray.serve.RayServeAPIService/ListApplications")
    assert list_applications(b"") == b"\n\x07default\n\x05other"
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(service="harness.Greeter")).status == 1
    assert "harness.Greeter" in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_options_of_the_ingress(serving: Callable[..., Any]) -> None:
    options = GrpcOptions(route_by_service=True, error_details="message", request_timeout_s=2, port=1)
    server = serving({"a": Greeter.bind(), "b": Doubler.bind()}, options=options)
    assert server.client(DoublerSyncClient).Double(Number(number=2)).number == 4
    client = server.client(GreeterSyncClient)
    with pytest.raises(grpc.RpcError) as caught:
        client.Tell(Text(text="fail"))
    assert caught.value.details() == "ValueError: asked to fail"

    ended = threading.Event()

    def endless() -> Any:
        ended.wait()
        yield Number()

    with pytest.raises(grpc.RpcError) as caught:
        client.Sum(endless())
    ended.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_tls_with_client_certificates(serving: Callable[..., Any], tmp_path: Path) -> None:
    ours, theirs = Authority("servers"), Authority("clients")
    certificate, key = ours.sign("server", dns=("localhost",)).write(tmp_path, "server")
    (tmp_path / "clients.crt").write_bytes(theirs.certificate)
    client = theirs.sign("client", dns=("client.test",))
    options = GrpcOptions(tls_certificate=certificate, tls_private_key=key, tls_client_ca=str(tmp_path / "clients.crt"))
    server = serving(Greeter.bind(), options=options)
    trusted = grpc.ssl_channel_credentials(ours.certificate, client.key, client.certificate)
    assert server.client(GreeterSyncClient, credentials=trusted).SayHello(Text(text="x")).text == "hello x"
    with pytest.raises(grpc.RpcError):
        server.client(GreeterSyncClient, credentials=grpc.ssl_channel_credentials(ours.certificate)).SayHello(Text())


def test_tls_with_a_certificate_made_for_the_test(serving: Callable[..., Any]) -> None:
    server = serving(Greeter.bind(), tls=True)
    assert server.client(GreeterSyncClient).SayHello(Text(text="x")).text == "hello x"
    with pytest.raises(grpc.RpcError):
        server.client(GreeterSyncClient, credentials=None).SayHello(Text(), timeout=5)
    options = GrpcOptions(tls_certificate="/a", tls_private_key="/b")
    with pytest.raises(OptionsError, match="creates a certificate with tls=True"):
        sdk.testing.serve(Greeter.bind(), tls=True, options=options)


def test_the_servers_own_certificate_is_trusted_by_its_clients(serving: Callable[..., Any], tmp_path: Path) -> None:
    authority = Authority("servers")
    pair = authority.sign("server", dns=("localhost",))
    certificate, key = pair.write(tmp_path, "server")
    (tmp_path / "chain.crt").write_bytes(pair.certificate + authority.certificate)
    server = serving(
        Greeter.bind(), options=GrpcOptions(tls_certificate=str(tmp_path / "chain.crt"), tls_private_key=key)
    )
    assert server.client(GreeterSyncClient).SayHello(Text(text="x")).text == "hello x"
    assert GreeterStub(server.channel()).SayHello(Text(text="y")).text == "hello y"
    assert certificate


def test_instance_returns_the_running_object(serving: Callable[..., Any]) -> None:
    server = serving(Greeter.bind("hi"))
    greeter = server.instance(Greeter)
    assert type(greeter) is Greeter
    greeter.greeting = "bye"
    assert server.client(GreeterSyncClient).SayHello(Text(text="you")).text == "bye you"
    assert greeter.greeted == ["you"]


async def test_a_client_that_cancels_cancels_the_handler() -> None:
    cancelled = asyncio.Event()

    @sdk.grpc_deployment
    class Slow(Greeter):
        async def Count(self, request: Number) -> AsyncIterator[Number]:
            yield Number()
            try:
                await asyncio.sleep(60)
            finally:
                loop.call_soon_threadsafe(cancelled.set)

    loop = asyncio.get_running_loop()
    async with sdk.testing.serve(Slow()) as server, server.client(GreeterClient) as client:
        call = client.Count(Number())
        await call.read()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Greeter, "Application 'default' is a deployment class, not an application: bind it, `Greeter.bind\\(\\)`"),
        ("text", "Application 'default' is str, not an application"),
    ],
)
def test_other_objects_are_not_applications(given: Any, message: str) -> None:
    with pytest.raises(ApplicationError, match=message), sdk.testing.serve(given):
        pass


def test_serve_needs_an_application() -> None:
    with pytest.raises(ApplicationError, match="takes one application, or several by name"):
        sdk.testing.serve()
    with pytest.raises(ApplicationError, match="takes one application, or several by name"):
        sdk.testing.serve(Greeter.bind(), Doubler.bind())


@pytest.mark.parametrize(
    ("applications", "named", "said"),
    [
        ([{3: None}], {}, "but 3 is not a name"),
        ([{"": None}], {}, "but '' is not a name"),
        ([Greeter], {"default": Doubler}, "but two are named 'default'"),
    ],
)
def test_applications_without_a_unique_name(applications: list[Any], named: dict[str, Any], said: str) -> None:
    with pytest.raises(ApplicationError, match=f"each application needs a unique name, {said}$"):
        sdk.testing.serve(*applications, **named)


def test_an_exit_in_a_handler_is_one_failed_call(serving: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    @sdk.grpc_deployment
    class Leaves(Plain):
        async def SayHello(self, request: Text) -> Text:
            raise SystemExit(3)

    client = serving(Leaves.bind()).client(GreeterSyncClient)
    with pytest.raises(grpc.RpcError) as caught:
        client.SayHello(Text(text="you"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details().endswith("SystemExit: 3")
    assert client.Tell(Text()) == Text()
    assert "raised SystemExit(3): on Ray its replica would end now" in caplog.text


async def test_a_proxy_of_the_environment_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nobody listens there
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with sdk.testing.serve(Greeter.bind()) as server, server.client(GreeterClient) as client:
        assert (await client.SayHello(Text(text="you"), timeout=20)).text == "hello you"
        assert (await GreeterStub(server.aio_channel()).SayHello(Text(text="you"), timeout=20)).text == "hello you"
        blocking = server.client(GreeterSyncClient)
        assert (await asyncio.to_thread(blocking.SayHello, Text(text="you"), timeout=20)).text == "hello you"
        with GreeterSyncClient(server.target.replace("127.0.0.1", "localhost")) as by_name:
            assert (await asyncio.to_thread(by_name.SayHello, Text(text="you"), timeout=20)).text == "hello you"

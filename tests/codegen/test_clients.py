"""Generated clients against a small grpc server of this process."""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from sdk import Keepalive, RetryPolicy, RpcError, error_details
from sdk.client._channel import parse_target
from tests.support.certificates import Authority

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def guide(generated: Path) -> Iterator[ModuleType]:
    sys.path.insert(0, str(generated))
    yield importlib.import_module("user_defined_protos_sdk")
    sys.path.remove(str(generated))


@pytest.fixture(scope="module")
def awkward(generated: Path) -> Iterator[ModuleType]:
    sys.path.insert(0, str(generated))
    yield importlib.import_module("awkward_sdk")
    sys.path.remove(str(generated))


class Echo(grpc.GenericRpcHandler):
    """Answers every method of all four kinds, and returns the metadata of the call as trailing metadata."""

    def __init__(self, services: list[Any]) -> None:
        self.methods = {method.path: method for service in services for method in service.methods}
        self.seen: list[tuple[str, str | bytes]] = []
        self.remaining: float | None = None

    def service(self, details: Any) -> Any:
        method = self.methods[details.method]
        up, down = method.cardinality.client_streaming, method.cardinality.server_streaming

        def note(context: Any) -> None:
            self.seen = [(key, value) for key, value in context.invocation_metadata() if key != "user-agent"]
            self.remaining = context.time_remaining()
            context.set_trailing_metadata((("request_id", "made"),))

        def one(request: Any, context: Any) -> Any:
            note(context)
            if up:
                list(request)
            return method.response()

        def many(request: Any, context: Any) -> Iterator[Any]:
            note(context)
            for _ in request if up else range(3):
                yield method.response()

        kind = f"{'stream' if up else 'unary'}_{'stream' if down else 'unary'}_rpc_method_handler"
        return getattr(grpc, kind)(
            many if down else one,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )


@pytest.fixture
def echo(guide: ModuleType, awkward: ModuleType) -> Echo:
    return Echo([guide.USER_DEFINED_SERVICE, awkward.AWKWARD])


@pytest.fixture
def target(echo: Echo) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[echo])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def requests_of(method: Any, count: int) -> list[Any]:
    values = {"side": 1.0} if method.request.DESCRIPTOR.name == "Square" else {}
    return [method.request(**values) for _ in range(count)]


def test_all_four_kinds_blocking(awkward: ModuleType, target: str) -> None:
    service = awkward.AWKWARD
    with awkward.AwkwardSyncClient(target) as client:
        assert isinstance(client.Unary(service["Unary"].request()), service["Unary"].response)
        assert len(list(client.Down(service["Down"].request()))) == 3
        assert isinstance(client.Up(requests_of(service["Up"], 2)), service["Up"].response)
        assert len(list(client.Both(requests_of(service["Both"], 4)))) == 4
        _, call = client.Up.with_call(requests_of(service["Up"], 2))
        assert call.code() is grpc.StatusCode.OK


async def test_all_four_kinds_async(awkward: ModuleType, target: str) -> None:
    service = awkward.AWKWARD

    async with awkward.AwkwardClient(target) as client:
        call = client.Unary(service["Unary"].request())
        assert isinstance(await call, service["Unary"].response)
        assert await call.code() is grpc.StatusCode.OK
        assert len([reply async for reply in client.Down(service["Down"].request())]) == 3
        assert isinstance(await client.Up(requests_of(service["Up"], 2)), service["Up"].response)
        assert len([reply async for reply in client.Both(requests_of(service["Both"], 4))]) == 4
        stream = client.Both()
        await stream.write(requests_of(service["Both"], 1)[0])
        assert isinstance(await stream.read(), service["Both"].response)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it


def test_the_guides_way_to_call(guide: ModuleType, echo: Echo, target: str) -> None:
    service = guide.USER_DEFINED_SERVICE
    request = service["__call__"].request(name="foo", num=30, origin="bar")
    client = guide.UserDefinedServiceSyncClient(target)
    metadata = (("application", "app1"), ("request_id", "123"), ("multiplexed_model_id", "999"))
    _, call = client.__call__.with_call(request=request, metadata=metadata)
    assert sorted(echo.seen) == sorted(metadata)
    assert [tuple(pair) for pair in call.trailing_metadata()] == [("request_id", "made")]
    assert isinstance(client(request), service["__call__"].response)
    client.close()


async def test_calling_an_async_client(guide: ModuleType, target: str) -> None:
    client = guide.UserDefinedServiceClient(target)
    message = guide.USER_DEFINED_SERVICE["__call__"]
    assert isinstance(await client(message.request()), message.response)
    assert isinstance(await client.__call__(message.request()), message.response)
    await client.close()


@pytest.mark.parametrize(
    ("given", "options", "sent"),
    [
        ({}, {}, {}),
        ({"application": "a", "model_id": "m"}, {}, {"application": "a", "multiplexed_model_id": "m"}),
        ({"application": "a"}, {"application": "b", "request_id": "r"}, {"application": "b", "request_id": "r"}),
        ({"application": "a"}, {"application": None}, {}),
        ({"application": "a"}, {"metadata": [("application", "b")]}, {"application": "b"}),
        ({}, {"application": "a", "metadata": [("application", "b")]}, {"application": "a"}),
        ({"metadata": [("application", "a"), ("k", "v")]}, {"application": "b"}, {"application": "b", "k": "v"}),
        ({"metadata": [("k", "v")]}, {"metadata": [("b-bin", b"\0")]}, {"k": "v", "b-bin": b"\0"}),
    ],
)
def test_metadata(
    awkward: ModuleType, echo: Echo, target: str, given: dict[str, Any], options: dict[str, Any], sent: dict[str, Any]
) -> None:
    with awkward.AwkwardSyncClient(target, **given) as client:
        client.Unary(awkward.AWKWARD["Unary"].request(), **options)
    assert sorted(echo.seen) == sorted(sent.items())


def test_timeouts(awkward: ModuleType, echo: Echo, target: str) -> None:
    def remaining() -> float:
        assert echo.remaining is not None
        return echo.remaining

    with awkward.AwkwardSyncClient(target, timeout=50) as client:
        request = awkward.AWKWARD["Unary"].request()
        client.Unary(request)
        assert 40 < remaining() <= 51
        client.Unary(request, timeout=500)
        assert 400 < remaining() <= 501
        client.Unary(request, timeout=None)
        assert remaining() > 10_000


def test_an_unknown_option_is_refused(awkward: ModuleType, target: str) -> None:
    with (
        awkward.AwkwardSyncClient(target) as client,
        pytest.raises(TypeError, match=r"Unary got an unexpected keyword argument 'deadline'; it takes .*timeout"),
    ):
        client.Unary(awkward.AWKWARD["Unary"].request(), deadline=3)


async def test_a_channel_that_was_given_stays_open(awkward: ModuleType, target: str) -> None:
    request = awkward.AWKWARD["Unary"].request()
    with grpc.insecure_channel(target) as channel:
        with awkward.AwkwardSyncClient(channel) as client:
            client.Unary(request)
        awkward.AwkwardSyncClient(channel).Unary(request)

    async def main() -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            async with awkward.AwkwardClient(channel) as client:
                await client.Unary(request)
            await awkward.AwkwardClient(channel).Unary(request)

    await main()


def test_a_closed_client_makes_no_calls(awkward: ModuleType, target: str) -> None:
    client = awkward.AwkwardSyncClient(target)
    client.close()
    client.close()
    with pytest.raises(ValueError, match="AwkwardSyncClient is closed"):
        client.Unary(awkward.AWKWARD["Unary"].request())


def test_an_async_client_can_be_built_outside_a_loop(awkward: ModuleType, target: str) -> None:
    client = awkward.AwkwardClient(target)

    async def main() -> None:
        async with client:
            await client.Unary(awkward.AWKWARD["Unary"].request())

    asyncio.run(main())


async def test_wrong_channels(awkward: ModuleType) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(TypeError, match=r"AwkwardClient needs a channel of grpc\.aio"):
            awkward.AwkwardClient(channel)
        with pytest.raises(ValueError, match="max_message_length and options belong to a channel"):
            awkward.AwkwardSyncClient(channel, options=[])

    async def main() -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with pytest.raises(TypeError, match="AwkwardSyncClient needs a channel of grpc;"):
                awkward.AwkwardSyncClient(channel)

    await main()


def test_an_rpc_of_a_class_is_not_callable(awkward: ModuleType) -> None:
    assert repr(awkward.AwkwardClient.Unary) == "<AsyncUnaryUnary /test.awkward.Awkward/Unary>"
    with pytest.raises(TypeError, match="call Unary on a client"):
        awkward.AwkwardClient.Unary(awkward.AWKWARD["Unary"].request())


def test_errors_are_grpcs_own(awkward: ModuleType) -> None:
    request = awkward.AWKWARD["Unary"].request()
    with awkward.AwkwardSyncClient("127.0.0.1:1") as client, pytest.raises(grpc.RpcError) as caught:
        client.Unary(request, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def options_of(client: Any) -> dict[str, Any]:
    return dict(client._options)


def test_defaults_of_a_channel(awkward: ModuleType) -> None:
    options = options_of(awkward.AwkwardSyncClient("localhost:1"))
    config = json.loads(options.pop("grpc.service_config"))
    assert options == {
        "grpc.max_receive_message_length": 64 << 20,
        "grpc.keepalive_time_ms": 300_000,
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.keepalive_permit_without_calls": 0,
        "grpc.enable_http_proxy": 0,  # because the address is that of this machine
    }
    (methods,) = config["methodConfig"]
    # Only those that the proto marks.
    names = [{"service": "test.awkward.Awkward", "method": method} for method in ("Down", "Up")]
    assert sorted(methods["name"], key=str) == sorted(names, key=str)
    assert methods["retryPolicy"] == {
        "maxAttempts": 4,
        "initialBackoff": "0.100s",
        "maxBackoff": "2.000s",
        "backoffMultiplier": 2.0,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    assert config["retryThrottling"] == {"maxTokens": 100, "tokenRatio": 0.1}


def test_settings_of_a_channel(guide: ModuleType) -> None:
    kind = guide.UserDefinedServiceSyncClient
    assert "grpc.service_config" not in options_of(kind("localhost:1"))  # no method of it is marked
    assert options_of(kind("localhost:1", retry=None, keepalive=None, max_message_length=-1)) == {
        "grpc.max_receive_message_length": -1,
        "grpc.enable_http_proxy": 0,
    }
    given = {"grpc.keepalive_time_ms": 7, "grpc.lb_policy_name": "round_robin"}
    client = kind("localhost:1", keepalive=Keepalive(30, 5, without_calls=True), options=list(given.items()))
    assert options_of(client).items() >= {**given, "grpc.keepalive_permit_without_calls": 1}.items()
    config = options_of(kind("localhost:1", retry=RetryPolicy(methods="all")))["grpc.service_config"]
    assert json.loads(config)["methodConfig"][0]["name"] == [{}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attempts": 1}, r"attempts must be from 2 to 5, not 1 \(no retries: retry=None\)"),
        ({"attempts": 6, "first_backoff_s": 0}, "attempts .*; first_backoff_s must be positive, not 0"),
        ({"codes": (grpc.StatusCode.OK,)}, "codes must be members of grpc.StatusCode other than OK"),
        ({"methods": "some"}, "methods must be 'idempotent' or 'all', not 'some'"),
    ],
)
def test_a_wrong_retry_policy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^RetryPolicy: {message}"):
        RetryPolicy(**settings)


def test_a_wrong_keepalive() -> None:
    with pytest.raises(ValueError, match="time_s must be at least 10 and timeout_s positive, not 5 and 20"):
        Keepalive(5)


@pytest.mark.parametrize(
    ("target", "address", "is_secure"),
    [
        ("localhost:9000", "localhost:9000", False),
        ("dns:///localhost:9000", "dns:///localhost:9000", False),
        ("unix:/run/x", "unix:/run/x", False),
        ("http://localhost", "localhost:80", False),
        ("https://localhost/", "localhost:443", True),
        ("https://[::1]:9000", "[::1]:9000", True),
        ("https://[::1]", "[::1]:443", True),
    ],
)
def test_targets(target: str, address: str, is_secure: bool) -> None:
    parsed, credentials = parse_target(target, None)
    assert (parsed, credentials is not None) == (address, is_secure)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "the target is empty"),
        ("https://", "must be a host and a port only"),
        ("https://localhost/path", "must be a host and a port only, such as 'https://host:9000'"),
        ("http://localhost", "is plain text, but credentials for TLS were given"),
    ],
)
def test_wrong_targets(awkward: ModuleType, target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        awkward.AwkwardSyncClient(target, credentials=grpc.ssl_channel_credentials())


def test_a_token_goes_with_every_call_over_tls(awkward: ModuleType, echo: Echo) -> None:
    authority = Authority("here")
    pair = authority.sign("server", dns=("localhost",))
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[echo])
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(pair.key, pair.certificate)]))
    server.start()
    trusted = grpc.ssl_channel_credentials(authority.certificate)
    tokens = iter(["one", "two"])
    request = awkward.AWKWARD["Unary"].request()
    with awkward.AwkwardSyncClient(f"https://localhost:{port}", credentials=trusted, token="fixed") as client:
        client.Unary(request)
    assert dict(echo.seen)["authorization"] == "Bearer fixed"
    with awkward.AwkwardSyncClient(f"localhost:{port}", credentials=trusted, token=lambda: next(tokens)) as client:
        client.Unary(request)
        client.Unary(request)
        assert dict(echo.seen)["authorization"] == "Bearer two"
        with pytest.raises(grpc.RpcError, match=r"StopIteration|Getting metadata from plugin failed"):
            client.Unary(request, timeout=10)
    server.stop(None).wait()


def test_a_token_without_tls_is_refused(awkward: ModuleType) -> None:
    with pytest.raises(ValueError, match="a token is sent over TLS only: also pass credentials, or an https:// target"):
        awkward.AwkwardClient("localhost:1", token="t")


async def test_waiting_for_a_connection(awkward: ModuleType, target: str) -> None:
    with awkward.AwkwardSyncClient(target) as client:
        client.wait_for_ready(timeout=10)
    nobody = "127.0.0.1:1"
    with (
        awkward.AwkwardSyncClient(nobody) as client,
        pytest.raises(TimeoutError, match=r"no connection to '127\.0\.0\.1:1' within 0\.1 s"),
    ):
        client.wait_for_ready(timeout=0.1)

    async def main() -> None:
        async with awkward.AwkwardClient(target) as client:
            await client.wait_for_ready(timeout=10)
        async with awkward.AwkwardClient(nobody) as client:
            with pytest.raises(TimeoutError, match=r"no connection to '127\.0\.0\.1:1' within 0\.1 s"):
                await client.wait_for_ready(timeout=0.1)

    await main()


def test_a_call_may_wait_for_the_server(awkward: ModuleType) -> None:
    request = awkward.AWKWARD["Unary"].request()
    with awkward.AwkwardSyncClient("127.0.0.1:1") as client, pytest.raises(grpc.RpcError) as caught:
        client.Unary(request, wait_for_ready=True, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_was_used_and_closed_says_so(awkward: ModuleType, target: str) -> None:
    request = awkward.AWKWARD["Unary"].request()
    client = awkward.AwkwardSyncClient(target)
    client.Unary(request)
    client.close()
    with pytest.raises(ValueError, match="AwkwardSyncClient is closed; create a new one"):
        client.Unary(request)
    assert repr(client) == f"<AwkwardSyncClient for {target!r}, closed>"

    async def main() -> None:
        async with awkward.AwkwardClient(target) as client:
            await client.Unary(request)
        with pytest.raises(ValueError, match="AwkwardClient is closed; create a new one"):
            await client.Unary(request)

    await main()


def test_closing_cancels_calls(awkward: ModuleType, target: str) -> None:
    began = threading.Event()

    def endless() -> Iterator[Any]:
        began.set()
        threading.Event().wait(20)
        yield from ()

    client = awkward.AwkwardSyncClient(target)
    call = client.Both(endless())
    began.wait(10)
    client.close()
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_clients_share_a_channel(awkward: ModuleType, guide: ModuleType, target: str) -> None:
    with awkward.AwkwardSyncClient(target) as client:
        with guide.UserDefinedServiceSyncClient(client.channel) as other:
            other(guide.USER_DEFINED_SERVICE["__call__"].request())
        client.Unary(awkward.AWKWARD["Unary"].request())


@pytest.mark.parametrize("do", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_can_not_be_pickled(awkward: ModuleType, do: Callable[[Any], Any]) -> None:
    for kind in (awkward.AwkwardClient, awkward.AwkwardSyncClient):
        with pytest.raises(TypeError, match=f"{kind.__name__} can't be pickled or copied: it has a connection"):
            do(kind("localhost:1"))


class Failing(grpc.GenericRpcHandler):
    """Ends every call with a status whose details are these bytes."""

    def __init__(self) -> None:
        self.trailing: tuple[tuple[str, str | bytes], ...] = ()

    def service(self, details: Any) -> Any:
        def fail(request: Any, context: Any) -> Any:
            context.set_trailing_metadata((*self.trailing, ("request_id", "r1"), ("date", "today"), ("k", "v")))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong")

        return grpc.unary_unary_rpc_method_handler(fail)


@pytest.fixture
def failing() -> Iterator[tuple[Failing, str]]:
    handler = Failing()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None).wait()


async def failure(awkward: ModuleType, target: str) -> list[grpc.RpcError]:
    """Return the error of a call of the blocking client, and of the async client."""
    request = awkward.AWKWARD["Unary"].request()
    errors = []
    with awkward.AwkwardSyncClient(target) as client, pytest.raises(grpc.RpcError) as caught:
        client.Unary(request)
    errors.append(caught.value)

    async with awkward.AwkwardClient(target) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.Unary(request)
        errors.append(caught.value)
    return errors


async def test_details_of_an_error_are_typed(awkward: ModuleType, failing: tuple[Failing, str]) -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="name")])
    ours = awkward.AWKWARD["Unary"].request()
    unknown = AnyMessage(type_url="type.googleapis.com/nobody.Knows", value=b"x")
    broken = AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
    status = Status(code=3, message="wrong")
    for message in (bad, ours):
        status.details.add().Pack(message)
    status.details.extend([unknown, broken])
    handler, target = failing
    date = ("date", b"Sun, 29 Nov 2026 04:00:00 GMT")  # as proxies add it
    handler.trailing = (("grpc-status-details-bin", status.SerializeToString()), date)
    for error in await failure(awkward, target):
        assert error_details(error) == [bad, ours, unknown, broken]
        assert [type(detail) for detail in error_details(error)] == [BadRequest, type(ours), AnyMessage, AnyMessage]
        raised = RpcError.from_grpc(error)
        assert (raised.code, raised.details) == (grpc.StatusCode.INVALID_ARGUMENT, "wrong")
        assert (raised.find(BadRequest), raised.find(type(ours))) == (bad, ours)
        assert [tuple(pair) for pair in raised.trailing_metadata] == [("k", "v")]


@pytest.mark.parametrize("trailing", [(), (("grpc-status-details-bin", b"\xff\xff"),)])
async def test_an_error_without_details(
    awkward: ModuleType, failing: tuple[Failing, str], trailing: tuple[tuple[str, bytes], ...]
) -> None:
    handler, target = failing
    handler.trailing = trailing
    for error in await failure(awkward, target):
        assert error_details(error) == []
        assert RpcError.from_grpc(error).find(RetryInfo) is None


def test_an_exception_that_is_not_the_error_of_a_call() -> None:
    with pytest.raises(TypeError, match=r"KeyError\('x'\) is not the error of a call"):
        error_details(KeyError("x"))  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="is not the error of a call"):
        RpcError.from_grpc(grpc.RpcError())

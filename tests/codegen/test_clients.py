"""Generated clients against a small grpc server of this process."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import pytest

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


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Answers every method of all four kinds, and sends the metadata that it got back as trailing metadata."""

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


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


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


def test_all_four_kinds_async(awkward: ModuleType, target: str) -> None:
    service = awkward.AWKWARD

    async def main() -> None:
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

    run(main)


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


def test_calling_an_async_client(guide: ModuleType, target: str) -> None:
    async def main() -> None:
        client = guide.UserDefinedServiceClient(target)
        message = guide.USER_DEFINED_SERVICE["__call__"]
        assert isinstance(await client(message.request()), message.response)
        assert isinstance(await client.__call__(message.request()), message.response)
        await client.close()

    run(main)


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


def test_a_channel_that_was_given_stays_open(awkward: ModuleType, target: str) -> None:
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

    run(main)


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

    run(main)


def test_wrong_channels(awkward: ModuleType) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(TypeError, match=r"AwkwardClient needs a channel of grpc\.aio"):
            awkward.AwkwardClient(channel)
        with pytest.raises(ValueError, match="max_message_length and options belong to a channel"):
            awkward.AwkwardSyncClient(channel, options=[])

    async def main() -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with pytest.raises(TypeError, match="AwkwardSyncClient needs a channel of grpc;"):
                awkward.AwkwardSyncClient(channel)

    run(main)


def test_an_rpc_of_a_class_is_not_callable(awkward: ModuleType) -> None:
    assert repr(awkward.AwkwardClient.Unary) == "<AsyncUnaryUnary /test.awkward.Awkward/Unary>"
    with pytest.raises(TypeError, match="Unary is called on a client"):
        awkward.AwkwardClient.Unary(awkward.AWKWARD["Unary"].request())


def test_errors_are_grpcs_own(awkward: ModuleType) -> None:
    request = awkward.AWKWARD["Unary"].request()
    with awkward.AwkwardSyncClient("127.0.0.1:1") as client, pytest.raises(grpc.RpcError) as caught:
        client.Unary(request, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

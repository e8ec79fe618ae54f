"""Wrong uses of clients raise an error before anything is sent."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from harness_pb2 import Number, Text
from harness_sdk import GreeterClient, GreeterSyncClient

import sdk.testing
from tests.testing.harness_apps import Greeter

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def server() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(Greeter.bind()) as server:
        yield server


def failing() -> Iterator[Number]:
    yield Number(number=1)
    raise LookupError("no more")


async def failing_async() -> AsyncIterator[Number]:
    yield Number(number=1)
    raise LookupError("no more")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda client: client.SayHello("you"), "SayHello takes a harness.Text, not a str"),
        (lambda client: client.SayHello(Number()), "SayHello takes a harness.Text, not a harness.Number"),
        (lambda client: client.Count(None), "Count takes a harness.Number, not a NoneType"),
        (
            lambda client: client.SayHello(Text(), metadata={"a": "b"}),
            r"metadata must be pairs, \[\('key', 'value'\)\]",
        ),
    ],
)
async def test_a_wrong_request(server: sdk.testing.Server, call: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        call(server.client(GreeterSyncClient))

    async with server.client(GreeterClient) as client:
        with pytest.raises(TypeError, match=said):
            await call(client)


def test_the_caller_gets_the_error_of_its_request_stream(server: sdk.testing.Server) -> None:
    client = server.client(GreeterSyncClient)
    wrong: Any = client
    with pytest.raises(TypeError, match=r"Sum takes an iterable of harness\.Number, not a harness\.Number"):
        wrong.Sum(Number())
    with pytest.raises(TypeError, match=r"Chat takes an iterable of harness\.Text, not a int"):
        wrong.Chat(7)
    with pytest.raises(TypeError, match=r"Sum takes a harness\.Number, not a harness\.Text"):
        wrong.Sum([Number(), Text()])
    with pytest.raises(LookupError, match="no more"):
        client.Sum.with_call(failing())
    # The call has this error, although its request stream failed before.
    with pytest.raises(grpc.RpcError) as caught:
        list(wrong.Chat([Number()]))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize("requests", [failing, failing_async])
async def test_why_a_stream_of_requests_was_cancelled_is_logged(
    server: sdk.testing.Server, requests: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with server.client(GreeterClient) as client:
            with pytest.raises(asyncio.CancelledError):
                await client.Sum(requests())
            wrong: Any = client
            with pytest.raises(TypeError, match="Sum takes an iterable or an async iterable of harness"):
                wrong.Sum(7)

    await main()
    (record,) = [each for each in caplog.records if each.name == "sdk.client"]
    assert record.getMessage() == "/harness.Greeter/Sum is cancelled: the iterator of its requests raised"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


@pytest.mark.parametrize("method", ["Sum", "Chat"])
async def test_a_wrong_request_is_not_written(server: sdk.testing.Server, method: str) -> None:
    right, wrong = (Number(number=7), Text(text="7")) if method == "Sum" else (Text(text="7"), Number(number=7))

    async with server.client(GreeterClient) as client:
        call: Any = getattr(client, method)()
        await call.write(right)
        with pytest.raises(TypeError, match=rf"{method} takes a harness\.\w+, not a harness\.\w+"):
            await call.write(wrong)
        await call.write(right)  # the call continues
        await call.done_writing()
        answer = (await call).number if method == "Sum" else [each.text async for each in call]
        assert answer in (14, ["7", "7"])


def test_a_message_of_the_same_name_is_accepted(server: sdk.testing.Server) -> None:
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto()
    Text.DESCRIPTOR.file.CopyToProto(file)  # type: ignore[arg-type]  # its stub knows one of two descriptor classes
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    same: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("harness.Text"))
    assert not issubclass(same, Text)
    assert server.client(GreeterSyncClient).SayHello(same(text="you")).text == "hello you"


def test_an_async_client_belongs_to_one_loop(server: sdk.testing.Server) -> None:
    client = server.client(GreeterClient)
    with pytest.raises(RuntimeError, match=r"^GreeterClient is used outside an event loop: call it in a coroutine"):
        client.SayHello(Text())

    async def call() -> None:
        await client.SayHello(Text())

    async def use_and_close() -> None:
        await call()
        with pytest.raises(RuntimeError, match=r"^GreeterClient belongs to another event loop: create one"):
            await asyncio.to_thread(asyncio.run, call())
        await client.close()

    asyncio.run(use_and_close())


FORK = """
import os
from harness_pb2 import Text
from harness_sdk import GreeterSyncClient

fresh, used = (GreeterSyncClient({target!r}) for _ in range(2))
used.SayHello(Text())
child = os.fork()
if not child:
    try:
        used.SayHello(Text())
    except RuntimeError as error:
        print(error, flush=True)
    fresh.SayHello  # no call: gRPC may have been amid something when it was forked
    os._exit(0)
os.waitpid(child, 0)
print(used.SayHello(Text(text="parent")).text)
"""


def test_a_client_from_before_a_fork(server: sdk.testing.Server) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", FORK.format(target=server.target)], env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "GreeterSyncClient was in use when this process was forked, and gRPC does not work after a fork: spawn "
        "processes, or fork them before the first call",
        "hello parent",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"target": None}, "GreeterSyncClient needs a target, 'host:port', or a channel, not None"),
        ({"timeout": "3"}, "timeout must be of type int or float, or None, not '3'"),
        ({"application": 3}, "application must be of type str, or None, not 3"),
        ({"model_id": b"m"}, "model_id must be of type str, or None, not b'm'"),
        ({"retry": 3}, "retry must be of type RetryPolicy, or None, not 3"),
        ({"keepalive": 30}, "keepalive must be of type Keepalive, or None, not 30"),
        ({"metadata": {"key": "value"}}, r"metadata must be pairs, \[\('key', 'value'\)\], not \{'key': 'value'\}"),
    ],
)
def test_wrong_settings(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=f"^{said}$"):
        GreeterSyncClient(**{"target": "localhost:1", **arguments})

"""Injected faults, and the retries of clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from harness_pb2 import Number, Text
from harness_sdk import DoublerSyncClient, GreeterBase, GreeterClient, GreeterSyncClient

import sdk.testing
from sdk import OptionsError, RetryPolicy, error_details
from tests.testing.harness_apps import Doubler, Greeter, SyncGreeter

pytestmark = pytest.mark.timeout(60)
UNAVAILABLE, ABORTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED


@pytest.fixture(scope="module")
def shared() -> Iterator[sdk.testing.Server]:
    with sdk.testing.serve(Greeter.bind(), threads=SyncGreeter.bind(), doubler=Doubler.bind()) as server:
        yield server


@pytest.fixture
def server(shared: sdk.testing.Server) -> Iterator[sdk.testing.Server]:
    yield shared
    shared.clear_faults()


@pytest.fixture
def client(server: sdk.testing.Server) -> GreeterSyncClient:
    return server.client(GreeterSyncClient, application="default", timeout=20)


def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def test_a_status_with_details(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    wait = RetryInfo()
    wait.retry_delay.FromMilliseconds(1500)
    greeted = len(server.instance(Greeter).greeted)
    with (
        server.inject(status=ABORTED, details="later", errors=[wait], trailing_metadata=[("k", "v")]) as fault,
        pytest.raises(grpc.RpcError) as caught,
    ):
        client.SayHello(Text())
    assert (caught.value.code(), caught.value.details(), fault.hits) == (ABORTED, "later", 1)
    assert error_details(caught.value) == [wait]
    assert dict(caught.value.trailing_metadata())["k"] == "v"
    assert len(server.instance(Greeter).greeted) == greeted  # the handler did not run
    assert client.SayHello(Text(text="a")).text == "hello a"  # the end of the block clears the fault


def test_latency(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    with server.inject(latency_s=0.3):
        began = time.perf_counter()
        assert client.SayHello(Text(text="a")).text == "hello a"
        assert time.perf_counter() - began >= 0.3
        assert code_of(lambda: client.SayHello(Text(), timeout=0.1)) is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "method",
    [
        GreeterBase.Sum,
        Greeter.Sum,
        GreeterSyncClient.Sum,
        GreeterClient.Sum,
        "/harness.Greeter/Sum",
        "harness.Greeter/Sum",
    ],
    ids=["base", "class", "blocking client", "async client", "path", "name"],
)
def test_one_method_only(server: sdk.testing.Server, client: GreeterSyncClient, method: Any) -> None:
    server.inject(status=ABORTED, method=method)
    assert code_of(lambda: client.Sum([])) is ABORTED
    assert code_of(lambda: client.SayHello(Text())) is grpc.StatusCode.OK


def test_one_service_or_one_application_only(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    doubler = server.client(DoublerSyncClient, application="doubler")
    with server.inject(status=ABORTED, method="harness.Doubler"):
        assert code_of(lambda: doubler.Double(Number())) is ABORTED
        assert code_of(lambda: client.SayHello(Text())) is grpc.StatusCode.OK
    with server.inject(status=ABORTED, application="threads"):
        assert code_of(lambda: client.SayHello(Text(), application="threads")) is ABORTED
        assert code_of(lambda: client.SayHello(Text())) is grpc.StatusCode.OK


def test_a_number_and_a_share_of_the_calls(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    with server.inject(status=ABORTED, times=2):
        codes = [code_of(lambda: client.SayHello(Text())) for _ in range(4)]
    assert codes == [ABORTED] * 2 + [grpc.StatusCode.OK] * 2
    with server.inject(status=ABORTED, share=0.3) as fault:
        codes = [code_of(lambda: client.SayHello(Text())) for _ in range(100)]
    assert 15 <= fault.hits <= 45
    assert codes.count(ABORTED) == fault.hits


@pytest.mark.parametrize("application", ["default", "threads"])
def test_an_error_during_a_stream(server: sdk.testing.Server, client: GreeterSyncClient, application: str) -> None:
    with server.inject(status=UNAVAILABLE, after_messages=2):
        for stream in (
            client.Count(Number(number=5), application=application),
            client.Chat([Text(text="x")] * 5, application=application),
        ):
            next(stream), next(stream)
            assert code_of(lambda stream=stream: next(stream)) is UNAVAILABLE


def test_an_error_after_a_handler_of_one_answer(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    with server.inject(status=ABORTED, after_messages=1):
        assert code_of(lambda: client.SayHello(Text(text="ran"))) is ABORTED
    assert server.instance(Greeter).greeted[-1] == "ran"


async def test_idempotent_methods_are_retried(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    with server.inject(status=UNAVAILABLE, times=2) as fault:
        assert client.Tell(Text(), request_id="r").text == "r  default Greeter"
    assert fault.hits == 2
    with server.inject(status=UNAVAILABLE, times=2) as fault:
        assert [one.number for one in client.Count(Number(number=2))] == [0, 1]
    assert fault.hits == 2

    async def main() -> None:
        async with server.client(GreeterClient, application="default") as client:
            await client.Tell(Text())

    with server.inject(status=UNAVAILABLE, times=2) as fault:
        await main()
    assert fault.hits == 2


def test_at_most_four_attempts(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    with server.inject(status=UNAVAILABLE) as fault:
        assert code_of(lambda: client.Tell(Text())) is UNAVAILABLE
    assert fault.hits == 4


def test_other_methods_and_other_codes_are_not_retried(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    with server.inject(status=UNAVAILABLE) as fault:
        assert code_of(lambda: client.SayHello(Text())) is UNAVAILABLE
    assert fault.hits == 1
    with server.inject(status=grpc.StatusCode.RESOURCE_EXHAUSTED) as fault:
        assert code_of(lambda: client.Tell(Text())) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert fault.hits == 1


def test_a_response_that_has_begun_is_not_retried(server: sdk.testing.Server, client: GreeterSyncClient) -> None:
    with server.inject(status=UNAVAILABLE, after_messages=1) as fault:
        assert code_of(lambda: list(client.Count(Number(number=3)))) is UNAVAILABLE
    assert fault.hits == 1


@pytest.mark.parametrize(
    ("retry", "hits"),
    [
        (None, 1),
        (RetryPolicy(attempts=2, first_backoff_s=0.01, methods="all"), 2),
        (RetryPolicy(attempts=3, first_backoff_s=0.01, codes=(ABORTED, UNAVAILABLE), methods="all"), 3),
    ],
)
def test_a_retry_policy_of_the_client(server: sdk.testing.Server, retry: RetryPolicy | None, hits: int) -> None:
    client = server.client(GreeterSyncClient, application="default", retry=retry)
    with server.inject(status=UNAVAILABLE) as fault:
        assert code_of(lambda: client.SayHello(Text())) is UNAVAILABLE
    assert fault.hits == hits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give latency_s, status, or both"),
        ({"latency_s": -1}, "latency_s must not be negative, got -1"),
        ({"status": ABORTED, "share": 2}, "share must be from 0 to 1, got 2"),
        ({"status": ABORTED, "times": 0}, "times must be at least 1 or None, got 0"),
        ({"latency_s": 1, "after_messages": 1}, "after_messages must be at least 0 and come with a status, got 1"),
        ({"status": ABORTED, "application": "x"}, "no application 'x' is served"),
        ({"status": ABORTED, "method": "harness.Greeter/Say"}, "no method 'harness.Greeter/Say' is served; there are"),
        ({"status": ABORTED, "method": len}, "no method len is served; there are /harness.Doubler/Double, "),
    ],
)
def test_wrong_arguments(server: sdk.testing.Server, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=r"^inject: ") as caught:
        server.inject(**arguments)
    assert message in str(caught.value)

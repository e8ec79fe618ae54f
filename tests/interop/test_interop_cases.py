"""Every case of the interop test description, by every client, on async handlers and on sync ones.

The clients send no ``application`` metadata, so one application is deployed at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from interop_pb2 import SimpleRequest

import sdk
from sdk._serve.api import delete
from tests.interop import compressed_cases, interop_service
from tests.interop.aio_client import AioClient
from tests.interop.cases import CASES
from tests.interop.node_client import NodeClient
from tests.interop.sync_client import SyncClient
from tests.support.raw_client import RawClient

Run = Callable[[str], None]


@pytest.fixture(scope="module", params=["sync", "async"])  # the async one stays for the other tests of this folder
def address(request: pytest.FixtureRequest, ingress: Any) -> Iterator[str]:
    """Deploy one implementation of the service; return its address."""
    if request.param == "async":
        yield request.getfixturevalue("inspector")
        return
    sdk.run(interop_service.SyncTestService.bind(), name="interop")
    yield ingress.address
    delete("interop")


@pytest.fixture(scope="module")
def grpcio(address: str) -> Iterator[Run]:
    client = SyncClient(address)
    yield lambda case: getattr(client, case)()
    client.close()


@pytest.fixture(scope="module")
def grpc_aio(address: str) -> Run:
    async def run(case: str) -> None:
        client = AioClient(address)
        await getattr(client, case)()
        await client.close()

    return lambda case: asyncio.run(run(case))


@pytest.fixture(scope="module")
def grpc_js(address: str) -> Iterator[Run]:
    with NodeClient(address) as client:
        yield client.run


@pytest.mark.parametrize("client", ["grpcio", "grpc_aio", "grpc_js"])
@pytest.mark.parametrize("case", CASES)
def test_case(case: str, client: str, address: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(client)(case)


@pytest.mark.parametrize("case", [case for case in CASES if "compressed" in case])
def test_compression_flags(case: str, address: str) -> None:
    with RawClient(address) as client:
        getattr(compressed_cases, case)(client)


def test_the_answer_to_a_cacheable_call_says_so(address: str) -> None:
    with RawClient(address) as client:
        stream = client.call("/grpc.testing.TestService/CacheableUnaryCall", SimpleRequest())
    assert stream.status == (0, b"")
    assert stream.first(b"cache-control") == [b"max-age=60, public"]

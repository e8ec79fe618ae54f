"""Put the folders of the examples on the path, since the tests import their modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

import sdk.testing
from sdk.client import SyncClient
from tests.support.cluster import share_with_replicas
from tests.support.readme import EXAMPLES

share_with_replicas(*EXAMPLES)

C = TypeVar("C", bound=SyncClient)


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """Serve an application for a test, and return a client of it."""
    with_servers: list[Any] = []

    def serve(app: Any, kind: type[C], **arguments: Any) -> C:
        server = sdk.testing.serve(app)
        with_servers.append(server)
        return server.__enter__().client(kind, **arguments)

    yield serve
    for server in with_servers:
        server.__exit__(None, None, None)

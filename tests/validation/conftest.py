"""A service whose messages have rules; its code, with that of the rules, is generated when the tests are collected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sdk.testing
from tests.support.cluster import generate, share_with_replicas

share_with_replicas(generate(Path(__file__).parent / "protos"))


@pytest.fixture(scope="package")
def server() -> Iterator[sdk.testing.Server]:
    """Serve the applications of ``order_apps.py``, behind a real Envoy, for all tests of this folder."""
    from tests.validation.order_apps import Intercepted, Orders, Outer, Reading, Some, Strict, Sync

    apps = {"orders": Orders.bind(), "strict": Strict.bind(), "some": Some.bind(), "sync": Sync.bind()}
    apps |= {"intercepted": Intercepted.bind(), "reading": Reading.bind()}
    with sdk.testing.serve(**apps, outer=Outer.bind(Orders.options(expose=False).bind())) as server:
        yield server

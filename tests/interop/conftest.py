"""Deploy the services of this folder for the interop tests, on code that the SDK generates from its protos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sdk
from sdk._serve.api import delete
from tests.support.cluster import generate, share_with_replicas
from tests.support.raw_client import RawClient

HERE = Path(__file__).parent
share_with_replicas(generate(HERE / "protos"))


@pytest.fixture(scope="package")
def inspector(ingress: Any) -> Iterator[str]:
    """Deploy the inspector, with the async test service, as the only application; return its address."""
    from tests.interop import inspector_service

    sdk.run(inspector_service.InspectorAndTestService.bind(), name="inspector")
    yield ingress.address
    delete("inspector")


@pytest.fixture
def raw(inspector: str) -> Iterator[RawClient]:
    with RawClient(inspector) as client:
        yield client

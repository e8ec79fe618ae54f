"""Typed handles of the integration tests' probe service, called in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import generate, share_with_replicas
from tests.support.served_handle import Deployment, deployment

share_with_replicas(generate(Path(__file__).parents[1] / "integration" / "protos"))


@pytest.fixture
async def served(request: Any) -> AsyncIterator[Deployment]:
    """The ``Callee`` of the test's module, as a deployment."""
    async with deployment(request.module.Callee()) as served:
        yield served


@pytest.fixture
def handle(served: Deployment) -> Any:
    from probe_sdk import AsyncProbeHandle

    return AsyncProbeHandle(served.handle)

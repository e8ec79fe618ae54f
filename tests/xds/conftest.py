"""Event loop of the tests with Envoy or an ADS stream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import loops


@pytest.fixture(scope="module")
def run() -> Iterator[loops.Run]:
    """Run a scenario. All scenarios of a module share one event loop."""
    with loops.runner() as run:
        yield run

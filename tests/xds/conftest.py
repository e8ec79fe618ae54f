"""The loop of the tests with Envoy or an ADS stream."""

from __future__ import annotations

from collections.abc import Iterator

import loops
import pytest


@pytest.fixture(scope="module")
def run() -> Iterator[loops.Run]:
    """Run a scenario; all of a module have one loop."""
    with loops.runner() as run:
        yield run

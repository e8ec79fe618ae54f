"""Servers on the loop of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.wire_rig import Serve, serving


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Make servers of handlers; they are drained when the test ends."""
    async with serving() as serve:
        yield serve

"""Applications for the test server; their code is generated when the tests are collected."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import generate

HERE = Path(__file__).parent
sys.path[:0] = [str(generate(protos)) for protos in (HERE / "protos", HERE.parent / "integration" / "protos")]


@pytest.fixture
def serving() -> Iterator[Callable[..., Any]]:
    """Start a test server for one test."""
    import sdk.testing

    with ExitStack() as stack:
        yield lambda *targets, **named: stack.enter_context(sdk.testing.serve(*targets, **named))

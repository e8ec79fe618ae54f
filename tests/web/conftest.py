"""A test server with the service of ``chat_app.py``, behind a real Envoy, for all tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import google.api
import pytest

import sdk.testing
from tests.support.cluster import generate

HERE = Path(__file__).parent
INSTALLED_PROTOS = Path(google.api.__path__[0]).parents[1]
sys.path.insert(0, str(generate(HERE / "protos", INSTALLED_PROTOS)))


@pytest.fixture(scope="package")
def server() -> Iterator[sdk.testing.Server]:
    """Serve the application."""
    from tests.web.chat_app import Chat

    with sdk.testing.serve(Chat.bind()) as server:
        yield server

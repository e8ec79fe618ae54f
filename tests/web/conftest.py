"""A test server with the service of ``chat_app.py``, behind a real Envoy, for all tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import google.api
import pytest

import sdk.testing
from sdk import GrpcOptions
from tests.support.cluster import generate

ORIGIN = "https://page.example"
HERE = Path(__file__).parent
INSTALLED_PROTOS = Path(google.api.__path__[0]).parents[1]
sys.path.insert(0, str(generate(HERE / "protos", INSTALLED_PROTOS)))


@pytest.fixture(scope="package")
def access_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of Envoy's log of calls."""
    return Path(tmp_path_factory.mktemp("web"), "access.log")


@pytest.fixture(scope="package")
def server(access_log: Path) -> Iterator[sdk.testing.Server]:
    """Serve the application."""
    from tests.web.chat_app import Chat

    options = GrpcOptions(access_log=str(access_log), cors_origins=(ORIGIN,), cors_headers=("x-mine",))
    with sdk.testing.serve(Chat.bind(), options=options) as server:
        yield server

"""One application whose deployments call one another through typed handles, for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sdk
from sdk._serve.api import delete
from tests.integration import typed_handle_apps


@pytest.fixture(scope="package")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(autouse=True, scope="package")
def app(ingress: Any, notes: Path) -> Iterator[None]:
    sdk.run(typed_handle_apps.composed(str(notes)), name="typed")
    yield
    delete("typed")

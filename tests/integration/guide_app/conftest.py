"""One application of the guide's service, the only one of the cluster, for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import sdk
from sdk._serve.api import delete
from tests.integration import apps


@pytest.fixture(autouse=True, scope="package")
def app1(ingress: Any) -> Iterator[None]:
    sdk.run(apps.Guide.bind(), name="app1")
    yield
    delete("app1")

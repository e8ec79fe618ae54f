"""One application of probes for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import sdk
from sdk._serve.api import delete
from tests.integration import probes
from tests.integration.prober import SERVICES, Prober


@pytest.fixture(autouse=True, scope="package")
def application(ingress: Any) -> Iterator[None]:
    sdk.run(probes.application(), name="probe")
    yield
    delete("probe")


@pytest.fixture(params=SERVICES)
def prober(channel: grpc.Channel, request: pytest.FixtureRequest) -> Prober:
    return Prober(channel, request.param)

"""Names in ``grpc_servicer_functions`` that no application serves are perhaps misspelled: a warning names them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sdk._serve.api import _warn_of_unserved


def ingress(*allowed: str) -> Any:
    deployment = SimpleNamespace(services=("shop.Shop", "shop.Till"))
    snapshot = SimpleNamespace(applications=[SimpleNamespace(deployments=[deployment])])
    return SimpleNamespace(snapshot=snapshot, options=SimpleNamespace(grpc_servicer_functions=allowed or None))


def test_each_name_that_no_application_serves_is_in_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_unserved(ingress("shop.Shop", "shop.Tlil", "store.Store"))
    assert caplog.messages == ["grpc_servicer_functions allows shop.Tlil, store.Store, which no application serves"]


def test_no_warning_if_all_are_served_or_all_are_allowed(caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_unserved(ingress("shop.Till"))
    _warn_of_unserved(ingress())
    assert caplog.messages == []

"""The one thread that ends a test which takes too long."""

from __future__ import annotations

import queue
from typing import Any

import pytest
import pytest_timeout

from tests import conftest
from tests.support.loops import PATIENCE_S
from tests.support.watchdog import Watchdog


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[Any]:
    """The tests whose time is over."""
    items: queue.Queue[Any] = queue.Queue()
    monkeypatch.setattr(pytest_timeout, "timeout_timer", lambda item, settings: items.put(item))
    return items


def limit(seconds: float) -> pytest_timeout.Settings:
    return pytest_timeout.Settings(seconds, "thread", func_only=False, disable_debugger_detection=False)


def test_every_test_is_watched(request: pytest.FixtureRequest) -> None:
    test = conftest._watchdog()._test
    assert test is not None
    assert test[0] is request.node
    assert not hasattr(request.node, "cancel_timeout"), "pytest-timeout watches it, too"


def test_a_limit_that_is_shorter_than_that_of_the_test_before(late: queue.Queue[Any]) -> None:
    watchdog, item = Watchdog(), object()
    watchdog.begin(object(), limit(3600))  # type: ignore[arg-type]  # it only passes them on
    watchdog.end()
    watchdog.begin(item, limit(0.01))  # type: ignore[arg-type]
    assert late.get(timeout=PATIENCE_S) is item


def test_a_test_that_has_ended_is_not_late(late: queue.Queue[Any]) -> None:
    watchdog, item = Watchdog(), object()
    with watchdog._change:  # its thread looks afterwards
        watchdog.begin(object(), limit(0.01))  # type: ignore[arg-type]  # it only passes them on
        watchdog.end()
    watchdog.begin(item, limit(0.02))  # type: ignore[arg-type]
    assert late.get(timeout=PATIENCE_S) is item
    assert late.empty()

"""Waits for applications, without Ray: Ray Serve's answers are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray.serve.schema import ApplicationStatus as ServeState

from sdk._serve import starting


def answers(monkeypatch: pytest.MonkeyPatch, *looks: dict[str, ServeState]) -> Iterator[dict[str, ServeState]]:
    """Let each look at Ray Serve see the next states of its applications, without a pause."""
    left = iter(looks)
    monkeypatch.setattr(starting, "application_states", lambda: next(left))
    monkeypatch.setattr(starting, "explain", lambda name: f"{name}: no room")
    monkeypatch.setattr(starting, "_POLL_INTERVAL_S", 0)
    return left


def test_each_application_is_reported_as_soon_as_it_runs_or_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, runs, fails = ServeState.DEPLOYING, ServeState.RUNNING, ServeState.DEPLOY_FAILED
    left = answers(
        monkeypatch,
        {"a": starts, "b": starts, "other": fails},
        {"a": starts, "b": fails, "other": fails},
        {"a": runs, "b": fails, "other": fails},
    )
    assert list(starting.started(["a", "b"])) == [("b", "b: no room"), ("a", "")]
    assert list(left) == []


@pytest.mark.parametrize("last", [{}, {"a": ServeState.DELETING}], ids=["gone", "going"])
def test_the_wait_for_an_application_that_is_deleted_meanwhile_ends(
    monkeypatch: pytest.MonkeyPatch, last: dict[str, ServeState]
) -> None:
    answers(monkeypatch, {"a": ServeState.DEPLOYING}, last)
    assert list(starting.started(["a"])) == [("a", "another program has deleted it")]


@pytest.mark.parametrize("last", [{}, {"a": ServeState.DEPLOYING}], ids=["gone", "deployed again"])
def test_a_deletion_ends_when_the_application_has_gone_or_is_deployed_again(
    monkeypatch: pytest.MonkeyPatch, last: dict[str, ServeState]
) -> None:
    left = answers(monkeypatch, {"a": ServeState.DELETING}, last)
    starting.wait_until_deleted("a")
    assert list(left) == []

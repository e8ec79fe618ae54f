"""The reasons why calls do not wait for a replica."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.exceptions import RayServeException

from sdk._serve import cold_start


def overview(application: str, deployment: str, trigger: str = "UNSPECIFIED", message: str = "") -> Any:
    named = SimpleNamespace(value=deployment)
    one = SimpleNamespace(status=named, status_trigger=SimpleNamespace(value=trigger), message=message)
    return SimpleNamespace(status=SimpleNamespace(value=application), deployments={"D": one})


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (overview("DEPLOYING", "UPDATING"), ""),
        (overview("RUNNING", "HEALTHY"), ""),
        (overview("UNHEALTHY", "UNHEALTHY"), ""),  # Ray Serve starts the next replica
        (overview("DELETING", "UPDATING"), "application 'app' is being deleted"),
        (overview("DEPLOY_FAILED", "DEPLOY_FAILED", message="no GPU"), "no GPU"),
        (overview("DEPLOYING", "UPDATING", "REPLICA_STARTUP_FAILED", "OSError: no model"), "OSError: no model"),
        (None, "Ray Serve has no deployment 'D' of application 'app'"),
    ],
)
def test_calls_wait_while_ray_serve_starts_a_replica(known: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only for this application: Ray Serve's answer about all of them grows with their number.
    monkeypatch.setattr(cold_start, "application_overview", {"app": known}.__getitem__)
    assert cold_start._start_failure("app", "D") == reason


@pytest.mark.parametrize(("controller", "reason"), [("restarting", ""), (None, "Ray Serve does not run")])
def test_calls_wait_while_ray_serve_restarts(
    controller: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overview(_: str) -> Any:
        raise RayServeException("not now")

    monkeypatch.setattr(cold_start, "application_overview", overview)
    monkeypatch.setattr(cold_start, "find_serve_controller", lambda: controller)
    assert cold_start._start_failure("app", "D") == reason

"""The state of the cluster for the page, without Ray."""

from __future__ import annotations

from typing import Any

import pytest

from sdk._figures.figures import REQUESTS, Reading
from sdk._serving_status import ApplicationStatus, ProxyStatus, Status
from sdk.cli.cluster_origin import ClusterOrigin
from sdk.cli.console import cluster as module
from sdk.cli.console.cluster import Cluster, NoCluster
from sdk.errors import ClusterError

STATUS = Status(
    (ApplicationStatus("app", "RUNNING", ()),), (ProxyStatus("n", "127.0.0.1:9000", True, 1, "", 3),), "", 3
)


def reading(at: float, calls: float) -> Reading:
    labels = frozenset({("application", "app"), ("route", "/a.B/C"), ("status_code", "OK")})
    return Reading(at, {("node", REQUESTS, labels): calls}, frozenset({"node"}))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Answer in place of Ray; an error is raised."""
    found: dict[str, list[Any]] = {"connect": [ClusterOrigin("here:6379", 1)], "status": [], "metrics": []}

    def take(name: str) -> Any:
        value = found[name].pop(0)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr("sdk.cli.ray_cluster.connect", lambda address: take("connect"))
    monkeypatch.setattr("sdk._serve.api.status", lambda: take("status"))
    monkeypatch.setattr("sdk._figures.scrape.read_metrics", lambda: take("metrics"))
    return found


def test_state_and_calls(answers: dict[str, list[Any]]) -> None:
    answers["status"] = [STATUS, STATUS, ClusterError("the head is gone")]
    answers["metrics"] = [reading(0, 0), reading(10, 50), ClusterError("no node exports metrics")]
    cluster = Cluster(None)
    first = cluster.read()
    assert first["cluster"].startswith("Ray at here:6379")
    assert (first["status"]["healthy"], first["status"]["version"], first["calls"]) == (True, 3, None)
    assert cluster.read()["calls"]["seconds"] == 10
    last = cluster.read()
    assert (last["status"], last["calls"]) == (None, None)
    assert last["problems"] == ["the head is gone", "no node exports metrics"]


def test_a_cluster_that_is_not_found_is_looked_for_again(
    answers: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers["connect"] = [ClusterError("no cluster is running"), ClusterOrigin("here:6379", 1)]
    answers["status"], answers["metrics"] = [STATUS], [reading(0, 0)]
    cluster = Cluster(None)
    for _ in range(2):  # the second time without a question
        assert cluster.read()["problems"] == ["no cluster is running"]
    monkeypatch.setattr(module, "_RETRY_S", -1.0)
    assert cluster.read()["status"]["healthy"]


def test_no_cluster_for_a_server_elsewhere() -> None:
    assert "--address" in NoCluster().read()["problems"][0]

"""`sdk logs`: its output and exit codes, with entries in place of those of a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sdk._serve.cluster_logs import Found
from sdk._serve.node_logs import Query
from sdk.cli.cluster_origin import ClusterOrigin
from sdk.cli.main import main
from sdk.errors import ClusterError


def entry(message: str, **fields: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("application", "deployment", "replica", "level", "request_id", "method", "trace_id", "call"))
    return {**empty, "time": 0.5, "source": "proxy", "node": "0123456789", "message": message, **fields}


PAID = entry(
    "paid", source="replica", application="shop", deployment="Till", replica="x1", level="INFO", request_id="r1"
)
CALLED = entry("/shop.Till/Buy OK 2", source="access", application="shop", request_id="r1")


class Cluster:
    """Readings in place of those of a cluster; Ctrl-C comes after the last."""

    def __init__(self) -> None:
        self.readings: list[Found] = []
        self.query: Query | None = None

    def __call__(self, query: Query) -> Cluster:
        self.query = query
        return self

    def read(self) -> Found:
        if not self.readings:
            raise KeyboardInterrupt
        return self.readings.pop(0)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    origin = ClusterOrigin("10.0.0.5:6379", 1, "ada", "/shop")
    monkeypatch.setattr("sdk.cli.ray_cluster.connect", lambda _address: origin)
    monkeypatch.setattr("sdk._serve.cluster_logs.ClusterLogs", found)
    monkeypatch.setattr("sdk.cli.logs.command.sleep", lambda _: None)
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["logs", *arguments])


def test_text(cluster: Cluster) -> None:
    cluster.readings = [Found([PAID, CALLED], 2)]
    done = run("--request-id", "r1")
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert first[24:] == "shop/Till/x1 INFO r1 -- paid"
    assert second[24:] == "access@01234567 INFO r1 -- /shop.Till/Buy OK 2"
    assert "Ray at 10.0.0.5:6379" in done.stderr
    assert cluster.query == Query(request_id="r1")


def test_json_is_one_object_a_line(cluster: Cluster) -> None:
    cluster.readings = [Found([PAID, CALLED], 2)]
    done = run("--application", "shop", "--deployment", "Till", "--json")
    assert done.exit_code == 0, done.output
    first, _ = map(json.loads, done.stdout.splitlines())
    assert first == {**PAID, "time": "1970-01-01T00:00:00.500+00:00"}
    assert cluster.query == Query(application="shop", deployment="Till", tail=200)


def test_follow_shows_what_is_new_until_ctrl_c(cluster: Cluster) -> None:
    cluster.readings = [Found([PAID], 1), Found([], 1, {"10.0.0.6": "gone"}), Found([CALLED], 1, {"10.0.0.6": "gone"})]
    done = run("--follow", "--tail", "0")
    assert done.exit_code == 130
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.count("no logs of node 10.0.0.6: gone") == 1
    assert cluster.query == Query()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "No line in the logs of 1 node."),
        (["--request-id", "x"], "No line of request id 'x' in the logs of 1 node. A call that no replica has answered"),
        (
            ["--application", "a", "--deployment", "d"],
            "No line of application 'a', deployment 'd' in the logs of 1 node.",
        ),
        (["--since", "10m"], "No line in the logs of 1 node; --since may be too short."),
    ],
)
def test_nothing_is_found(cluster: Cluster, arguments: list[str], text: str) -> None:
    cluster.readings = [Found([], 1)]
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert text in done.stderr


def test_a_node_that_is_not_read(cluster: Cluster) -> None:
    cluster.readings = [Found([PAID], 1, {"10.0.0.6": "no answer within 60 s"})]
    done = run()
    assert done.exit_code == 1
    assert "no logs of node 10.0.0.6: no answer within 60 s" in done.stderr


def test_wrong_use_and_no_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("--since", "soon")
    assert done.exit_code == 2
    assert "'soon' is not a time such as 30s, 10m, 2h or 1d" in done.stderr

    def connect(_address: str | None, **_: object) -> None:
        raise ClusterError("No Ray cluster runs here")

    monkeypatch.setattr("sdk.cli.ray_cluster.connect", connect)
    done = run()
    assert (done.exit_code, done.stderr) == (1, "error: No Ray cluster runs here\n")

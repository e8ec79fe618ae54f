"""A cluster of two nodes: each proxy reaches the replicas of both, and a lost node is removed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.namespaces import machines
from tests.support.ports import free_port
from tests.support.small_ray import program_environment

PROGRAM = Path(__file__).parent / "several_nodes.py"


def has_namespaces() -> bool:
    try:
        with machines(0):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    # Without CAP_NET_ADMIN, both nodes use the loopback address, which has room for only one Envoy.
    kind = "namespaces" if has_namespaces() else "loopback"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(free_port()), kind],
        env=program_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def test_replicas_on_another_node_are_reached(seen: dict[str, Any]) -> None:
    assert seen["with HeadOnly there is one proxy"] == 1
    assert seen["the head's proxy reaches"] == ["head", "other"]


@pytest.mark.parametrize("node", ["head", "other"])
def test_handles_reach_their_own_node_first_and_others_when_it_is_busy(seen: dict[str, Any], node: str) -> None:
    # With HeadOnly: the other node has no proxy, and Ray's handles would refuse the conversation.
    one_at_a_time, at_once, conversation = seen[f"handles on the {node} node reach"]
    assert one_at_a_time == [node]
    assert at_once == ["head", "other"]
    assert len(conversation) == 1


def test_every_node_has_a_proxy_that_reaches_every_replica(seen: dict[str, Any]) -> None:
    if "the other node's proxy reaches" not in seen:
        pytest.skip("two Envoys of one port need network namespaces, which this user may not make")
    assert seen["with EveryNode there are proxies on"] == ["head", "other"]
    assert seen["the other node's proxy reaches"] == ["head", "other"]


def test_a_draining_node_reports_it_to_load_balancers(seen: dict[str, Any]) -> None:
    if "its health" not in seen:
        pytest.skip("two Envoys of one port need network namespaces, which this user may not make")
    assert seen["its health"] == ["SERVING", "success"]
    assert seen["its health while it is drained"] == ["NOT_SERVING", "UNAVAILABLE: This node is being drained."]
    assert seen["the health of the head meanwhile"] == ["SERVING", "success"]


def test_a_lost_node_is_removed(seen: dict[str, Any]) -> None:
    assert set(seen["codes after a node is lost"]) <= {"OK", "UNAVAILABLE"}
    assert seen["then calls succeed"]
    assert seen["then the head's proxy reaches"] == ["head"]


def test_the_proxy_of_a_lost_node_leaves_nothing(seen: dict[str, Any]) -> None:
    assert not seen["its Envoy is left"]

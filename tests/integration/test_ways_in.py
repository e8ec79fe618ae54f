"""Deployments without ``sdk.start``, on a separate cluster: the session's cluster already has an ingress."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.integration.typed_handle_calls import OUTCOMES
from tests.support.small_ray import program_environment
from tests.validation.refusals import refused

PROGRAM = Path(__file__).parent / "ways_in.py"


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    environment = program_environment(RAY_AUTH_TOKEN=uuid.uuid4().hex)
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {key: value for step in steps for key, value in step.items()}


def test_a_replica_creates_the_ingress_that_the_rest_api_asks_for(seen: dict[str, Any]) -> None:
    assert seen["rest"]
    assert seen["announced"]
    assert seen["port"]
    assert seen["timeout"] == 7


def test_ray_serves_default_policy_counts_grpc_calls(seen: dict[str, Any]) -> None:
    assert seen["scaled"]


def test_serve_deploy_and_serve_run_join_it(seen: dict[str, Any]) -> None:
    assert (seen["deploy"], seen["deployed"]) == (0, True)
    assert (seen["run"], seen["ran"]) == (0, True)


def test_sdk_run_serves_a_config_next_to_others_and_reports_failures(seen: dict[str, Any]) -> None:
    assert seen["mine"] == "mine you"
    assert seen["beside"] == ["broken", "deploy", "mine", "ran", "rest"]
    assert seen["headline"] == "Serving 'mine'"
    assert seen["exit"] == 1
    assert seen["left"] == ["deploy", "ran", "rest"]
    (failure,) = seen["failure"]
    assert failure.startswith(
        "error: Application 'broken' failed to start: deployment Broken: OSError: no such model ("
    )


def test_the_ingress_outlives_a_restart_of_ray_serves_controller_and_ends_with_ray_serve(seen: dict[str, Any]) -> None:
    assert seen["there_while_it_restarts"]
    assert seen["gone_with_serve"]


def test_the_same_class_serves_behind_ray_serves_own_proxy(seen: dict[str, Any]) -> None:
    assert seen["own"] == [
        ["Unary", "OK", "mine", [2]],
        ["Down", "OK", "mine", [0, 1, 2]],
        ["Up", "OK", "mine", [2]],
        ["Both", "OK", "mine", [0, 1, 2]],
        ["INVALID_ARGUMENT", "0", "not found, adding"],
    ]


def test_messages_are_checked_behind_ray_serves_own_proxy(seen: dict[str, Any]) -> None:
    *right, place, follow, collect, exchange, response, fault = seen["checked"]
    assert [each[:2] for each in right] == [
        [["abc"], "OK"],
        [["abc", "there"], "OK"],
        [["abc"], "OK"],
        [["abc"], "OK"],
    ]
    # Code and text arrive; that proxy drops the details of an error.
    assert [each[:3] for each in (place, follow, collect)] == [list(refused())[:3]] * 3
    assert exchange[:3] == list(refused(["abc"]))[:3]
    assert response[1] == "INTERNAL"
    assert "returned a message that breaks the rules of its proto: text: must be at least 1 characters" in response[2]
    assert fault[1] == "INTERNAL"
    assert "divide by zero" in fault[2]


def test_handles_behind_ray_serves_own_proxy_go_over_ray_with_the_same_results(seen: dict[str, Any]) -> None:
    transport, stream, *outcomes = seen["handles"]
    assert transport == "_Responses"
    (refusal,) = stream
    assert refusal.startswith("UNIMPLEMENTED deployment 'Inner' of application 'typed' can't be called with a stream")
    # That proxy keeps the deadline to itself, and cancels the handler at its end.
    assert outcomes == [each is not True and each for each in OUTCOMES]


def test_the_ingress_reports_that_ray_serves_own_grpc_proxy_has_its_port(seen: dict[str, Any]) -> None:
    assert not seen["ingress"]
    assert "remove grpc_servicer_functions" in seen["problem"]
    assert "SDK_GRPC_PORT" in seen["problem"]

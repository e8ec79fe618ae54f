"""The environment of the manifest's pods, in a network namespace: the probe and the clients come from outside.

What this does not show: KubeRay's operator, its services, and the pods' images.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from quotes_pb2 import PickRequest
from quotes_sdk import QuotesSyncClient

from tests.support.namespaces import machines
from tests.support.readme import ROOT
from tests.support.small_ray import program_environment

MANIFEST = yaml.safe_load((ROOT / "config" / "rayservice.yaml").read_text())["spec"]
WORKER = MANIFEST["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]


@pytest.fixture
def pod() -> Iterator[str]:
    """The address of a pod whose applications are deployed, and call one another."""
    with contextlib.ExitStack() as stack:
        try:
            _, ((namespace, address),) = stack.enter_context(machines(1))
        except OSError as error:
            pytest.skip(f"a pod's network needs a network namespace, which this user may not make: {error}")
        options = {each["name"]: each["value"] for each in WORKER["env"]}
        program = stack.enter_context(
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", namespace, sys.executable, str(Path(__file__).with_name("pod.py"))),
                    *(address, MANIFEST["serveConfigV2"]),
                ],
                env=program_environment(ROOT / "config", **options, RAY_USAGE_STATS_ENABLED="0"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == "deployed\n", program.stderr.read()[-3000:]
        called = program.stdout.readline()  # through a handle, while every process of Ray needs its token
        assert called == "Make haste slowly. Make haste slowly. by the wire\n"
        yield address
        program.communicate()
        assert program.returncode == 0


def probe(address: str, settings: dict[str, Any]) -> str:
    """Return what the kubelet's gRPC probe sees, at the address of the pod and without TLS."""
    with grpc.insecure_channel(f"{address}:{settings['port']}") as channel:
        request = HealthCheckRequest(service=settings.get("service", ""))
        answer = HealthStub(channel).Check(request, timeout=20, wait_for_ready=True)
    return HealthCheckResponse.ServingStatus.Name(answer.status)


def test_the_probe_and_clients_reach_envoy_from_outside_the_pod(pod: str) -> None:
    assert probe(pod, WORKER["readinessProbe"]["grpc"]) == "SERVING"
    # The manifest has no others: KubeRay's own liveness probe watches Ray.
    assert probe(pod, {"port": WORKER["readinessProbe"]["grpc"]["port"], "service": "live"}) == "SERVING"
    for path in ("/-/live", "/-/ready"):
        with urllib.request.urlopen(f"http://{pod}:9000{path}", timeout=20) as response:
            assert (response.status, response.read()) == (200, b"success")
    (port,) = (each["containerPort"] for each in WORKER["ports"] if each["name"] == "serve")
    with QuotesSyncClient(f"{pod}:{port}", timeout=20) as client:
        assert client.Pick(PickRequest(), application="english").text == "Make haste slowly."
        assert client.Pick(PickRequest(), application="german").text == "Eile mit Weile.!"

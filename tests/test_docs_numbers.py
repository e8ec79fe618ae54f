"""Numbers and messages in the documentation that the code defines: a page and the code can't go apart."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import sdk
from sdk._gen import envoy_pb2 as pb
from sdk._ingress import cluster
from sdk._ingress.envoy import adoption, drain
from sdk._serve import autoscaling, replica_logs
from sdk._validation import validator
from sdk._wire import crash_trailers, malloc
from sdk._xds import bootstrap, listener, open_files, retries
from sdk._xds.packing import CLUSTER_TYPE
from sdk._xds.resources import ListenerConfig, build_resources
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot

DOCS = Path(__file__).parents[1] / "docs"
KIB, MIB = 1 << 10, 1 << 20
RETRY, KEEPALIVE, OPTIONS = sdk.RetryPolicy(), sdk.Keepalive(), sdk.GrpcOptions()


def text_of(page: str) -> str:
    """Return a page with one space for each run of white space."""
    return " ".join((DOCS / page).read_text().split())


def by_load() -> pb.Cluster:
    """Return Envoy's cluster of a deployment."""
    app = Application("one", (Deployment("Greeter", ("demo.Greeter",), (Endpoint("r", "10.0.0.1", 1),)),))
    resources = build_resources(Snapshot(1, (app,)), ListenerConfig(fallback_socket="/f.sock", port=9000))
    return pb.Cluster.FromString(resources.by_type[CLUSTER_TYPE]["one#Greeter"].value)


(CHECK,), (THRESHOLDS,) = by_load().health_checks, by_load().circuit_breakers.thresholds


@pytest.mark.parametrize(
    ("page", "sentence", "found", "said"),
    [
        ("operations/operation.md", "proxy of their node every two seconds", cluster.HEARTBEAT_S, 2),
        ("operations/operation.md", "and are forgotten after seven", cluster.LEASE_S, 7),
        ("operations/operation.md", "or after 15 s without contact", cluster.PROXY_LEASE_S, 15),
        ("operations/operation.md", "30 s after its proxy is gone for good", adoption.ACTOR_TIMEOUT_S, 30),
        ("operations/operation.md", "Lines are written together, every 50 ms", replica_logs._FLUSH_S, 0.05),
        ("operations/operation.md", "the kernel accepts up to 32 KiB", crash_trailers._ATOMIC_BYTES, 32 * KIB),
        ("operations/performance.md", "keeps up to 64 MiB of freed memory", malloc._TRIM_THRESHOLD, 64 * MIB),
        ("operations/deploying.md", "100,000 in any case", open_files._MOST, 100_000),
        ("operations/scaling.md", "of the deployment, or 10,000", autoscaling._MAX_WAITING, 10_000),
        ("reference/options.md", "Up to 262,144 frames of responses", listener._MAX_OUTBOUND_FRAMES, 262_144),
        (
            "reference/options.md",
            "one connection starts at most 32 calls in a turn",
            bootstrap._RUNTIME["http.max_requests_per_io_cycle"],
            32,
        ),
        (
            "reference/options.md",
            "every 0.75 s from the first call of its deployment on, and every 3 s before",
            (CHECK.interval.nanos / 1e9, CHECK.no_traffic_interval.seconds),
            (0.75, 3),
        ),
        ("reference/options.md", "Requests above 1 MiB", retries.BUFFERED_BYTES, MIB),
        (
            "reference/options.md",
            "At most half of the calls that a proxy has in flight for a deployment may be retries (100 in any case)",
            (THRESHOLDS.retry_budget.budget_percent.value, THRESHOLDS.retry_budget.min_retry_concurrency.value),
            (50, 100),
        ),
        ("reference/options.md", "gives calls three seconds to end", drain.DRAIN_TIMEOUT_S, 3),
        ("guides/clients.md", "three times at most", RETRY.attempts, 4),
        ("guides/clients.md", "silent for 300 s during a call", KEEPALIVE.time_s, 300),
        ("guides/clients.md", "after 20 s without an answer", KEEPALIVE.timeout_s, 20),
        ("guides/validation.md", "Of a message above 64 KiB", validator.FIRST_ONLY_BYTES, 64 * KIB),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_number_is_that_of_the_code(page: str, sentence: str, found: object, said: object) -> None:
    assert sentence in text_of(page)
    assert found == said


def test_the_lowest_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    every = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    lowest = dict(re.findall(r"^(ray\[serve\]|grpcio|protobuf)>=([\d.]+)", "\n".join(every), re.MULTILINE))
    pythons = [each.rpartition(" ")[2] for each in project["classifiers"] if ":: Python :: 3." in each]
    assert project["requires-python"] == f">={pythons[0]}"
    python, ray = f"Python {pythons[0]} to {pythons[-1]}", f"Ray {lowest['ray[serve]']}"
    grpcio, protobuf = f"grpcio {lowest['grpcio']}", f"protobuf {lowest['protobuf'].rpartition('.')[0]}"
    assert f"{python}, {ray} and later, {grpcio} and later, {protobuf} and 7" in text_of("versioning.md")
    assert f"{python}, and {ray} or later" in text_of("../README.md")


# Messages in the page of gRPC, Python and HTTP/2.
OF_OTHERS = {
    "cannot import name … from 'sdk'",
    "Connection refused",
    "failed to connect to all addresses",
    "ModuleNotFoundError",
    "RST_STREAM",
    "Socket closed",
    "wget: command not found",  # bash in a pod, for KubeRay's probe
}


def test_every_message_in_the_troubleshooting_page_is_one_of_ours() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (DOCS / "operations" / "troubleshooting.md").read_text(), re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row) if message not in OF_OTHERS]
    files = [DOCS.parent / "ray_grpc_sdk.py", *(DOCS.parent / "sdk").rglob("*.py")]
    sources = "".join(path.read_text() for path in files if "_gen" not in path.parts)
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # text that is broken into lines
    parts = {part.strip() for message in messages for part in message.split("…") if part.strip()}
    assert [part for part in parts if part not in sources] == []
    assert len(parts) > 8

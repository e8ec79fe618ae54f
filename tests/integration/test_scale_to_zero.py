"""A deployment at zero replicas starts one for its first calls, which wait for it; no call fails."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from probe_pb2 import Ask, Told
from probe_pb2_grpc import AsyncProbeStub
from probe_sdk import AsyncProbeHandle

import sdk
from sdk._serve.api import delete
from sdk.cli.status_view import as_text
from sdk.errors import RpcError
from tests.integration.clients import error_of, metadata_for, trailing
from tests.integration.prober import wait_until
from tests.integration.sleepy_app import Sleepy
from tests.web.http_client import ask_at
from tests.web.protocol_forms import FORMS, Form

if TYPE_CHECKING:
    from sdk._serving_status import DeploymentStatus
    from tests.support.cluster import Ingress

NAME = "sleepy"
METADATA = metadata_for(NAME)
SCALING = {
    "min_replicas": 0,
    "max_replicas": 3,
    "target_ongoing_requests": 4,
    "upscale_delay_s": 0.2,
    "downscale_delay_s": 0.4,
    "metrics_interval_s": 0.1,
    "look_back_period_s": 0.5,
}


@pytest.fixture(autouse=True, scope="module")
def obstacle(deploy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sleepy") / "obstacle"
    sleepy = Sleepy.options(autoscaling_config=SCALING, max_queued_requests=6, max_constructor_retry_count=1)
    deploy(sleepy.bind(str(path)), NAME)
    return path


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return AsyncProbeStub(channel)


def deployment() -> DeploymentStatus:
    return next(app for app in sdk.status().applications if app.name == NAME).deployments[0]


def sleeps() -> bool:
    now = deployment()
    return now.scaled_to_zero and not now.replicas


def test_01_before_any_replica_started_the_first_calls_wait_and_succeed(ingress: Ingress, stub: Any) -> None:
    assert sleeps(), "no replica was started by the deployment"
    assert "0 replicas, scaled to zero, wakes on a call, serves probe.AsyncProbe" in as_text(sdk.status())
    with grpc.insecure_channel(ingress.address) as other, grpc.insecure_channel(ingress.address) as third:
        check = HealthStub(other).Check(health_pb2.HealthCheckRequest(service="probe.AsyncProbe"), metadata=METADATA)
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        model = metadata_for(NAME, multiplexed_model_id="m1")
        unary = [AsyncProbeStub(one).Unary.future(Ask(note="a"), metadata=METADATA) for one in (other, third)]
        down = AsyncProbeStub(third).Down(Ask(note="d", number=3), metadata=METADATA)
        up = AsyncProbeStub(other).Up.future(iter([Ask(note="x"), Ask(note="y")]), metadata=model)
        both = stub.Both(iter([Ask(note="1"), Ask(note="2")]), metadata=METADATA)
        assert [reply.text for reply in both] == ["1", "2"]
        assert [reply.number for reply in down] == [0, 1, 2]
        assert up.result().text == "xy"
        assert [call.result().text for call in unary] == ["a", "a"]
    wait_until(lambda: deployment().replicas >= 1)


def test_02_a_waiting_call_ends_at_its_deadline_and_the_queue_has_a_limit(obstacle: Path, stub: Any) -> None:
    slow = obstacle.with_name(f"{obstacle.name}.slow")
    slow.touch()  # no constructor returns now; a replica whose constructor has returned may still come, and leave
    code = None
    while code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        assert code in (None, grpc.StatusCode.OK)
        wait_until(sleeps)
        code = stub.Unary.future(Ask(), metadata=METADATA, timeout=0.3).code()
    calls = [stub.Unary.future(Ask(note="q"), metadata=METADATA) for _ in range(10)]
    wait_until(lambda: sum(call.done() for call in calls) >= 4)
    slow.unlink()
    refused = [call for call in calls if call.done()]
    assert [call.code() for call in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 4
    assert all(trailing(call)["request_id"] for call in refused)
    assert [call.code() for call in calls if call not in refused] == [grpc.StatusCode.OK] * 6


def test_03_no_call_fails_while_it_scales_to_zero_and_back(stub: Any) -> None:
    seen: list[int] = []
    until = time.monotonic() + 60
    pauses = random.Random(7)
    for number in itertools.count():
        if len(set(seen)) > 2:  # it has scaled to zero twice
            break
        assert time.monotonic() < until, set(seen)
        calls = [stub.Unary.future(Ask(note=str(number), number=20), metadata=METADATA, timeout=20) for _ in range(3)]
        seen.append(calls[0].result().number)
        assert [call.result().text for call in calls] == [str(number)] * 3
        # By now a replica is about to leave, has just left, or was not going to leave.
        time.sleep(pauses.choice((0.01, 0.02, 0.05, 0.05, 0.9 + pauses.random())))


def call_over(form: Form, ingress: Ingress) -> tuple[int | None, list[Any]]:
    """Return code and messages of a stream with one message in another protocol; its number is 0."""
    headers = {"application": NAME, **form.headers, "content-type": form.content_type(False, True)}
    body = form.encode([Ask(note=form.name, number=1)], True)
    outcome = form.decode(ask_at(ingress.address, "/probe.AsyncProbe/Down", body, headers), Told, False, True)
    return outcome.code, outcome.messages


def test_03_a_call_through_a_handle_wakes_it_and_calls_by_clients_and_handles_scale_it_up(stub: Any) -> None:
    handle = AsyncProbeHandle.of_application(NAME)
    wait_until(sleeps)
    assert handle.Unary(Ask(note="wakes it"), timeout=30).result().text == "wakes it"
    by_clients = [stub.Unary.future(Ask(number=120_000), metadata=METADATA) for _ in range(5)]
    wait_until(lambda: deployment().replicas == 2)  # the target is 4 calls for each
    calls = [handle.Unary(Ask(number=120_000)) for _ in range(3)]
    streams = [handle.Both(_unended()) for _ in range(3)]
    wait_until(lambda: deployment().replicas == 3)
    for call in [*by_clients, *calls, *streams]:
        call.cancel()


async def _unended() -> AsyncIterator[Ask]:
    await asyncio.Event().wait()
    yield Ask()


def test_04_calls_end_with_the_reason_when_no_replica_can_start(stub: Any, obstacle: Path) -> None:
    wait_until(sleeps)
    obstacle.touch()
    failed = error_of(stub.Unary, Ask(), metadata=METADATA, timeout=30)
    assert failed.code() is grpc.StatusCode.UNAVAILABLE
    assert "FileNotFoundError: the model is not there" in str(failed.details())
    with pytest.raises(RpcError, match=r"UNAVAILABLE: .* can't start: .*FileNotFoundError: the model is not there"):
        AsyncProbeHandle.of_application(NAME).Unary(Ask(), timeout=30).result()
    obstacle.unlink()
    wait_until(lambda: stub.Unary.future(Ask(), metadata=METADATA, timeout=20).code() is grpc.StatusCode.OK)


def test_05_calls_in_all_protocols_and_through_a_handle_wake_it_after_delete_and_deploy(
    ingress: Ingress, stub: Any, obstacle: Path, deploy: Any
) -> None:
    delete(NAME)
    assert error_of(stub.Unary, Ask(), metadata=METADATA, timeout=5).code() is grpc.StatusCode.NOT_FOUND
    deploy(Sleepy.options(autoscaling_config=SCALING).bind(str(obstacle)), NAME)
    assert sleeps()
    handle = AsyncProbeHandle.of_application(NAME)
    with ThreadPoolExecutor(len(FORMS)) as threads:
        unary = stub.Unary.future(Ask(note="again"), metadata=METADATA, timeout=30)
        web = [threads.submit(call_over, form, ingress) for form in FORMS.values()]
        assert handle.Up([Ask(note="a"), Ask(note="b")], timeout=30).result().text == "ab"
        assert unary.result().text == "again"
        assert [call.result() for call in web] == [(0, [{"text": form}]) for form in FORMS]

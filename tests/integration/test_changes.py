"""Changes of applications under load."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import sdk
from tests.integration import apps
from tests.integration.clients import FOO
from tests.support.deadlines import PACE_S


def test_redeploy_under_load_loses_nothing_and_later_calls_reach_the_new_version(deploy: Any, ingress: Any) -> None:
    deploy(apps.Guide.bind("v1"), "changing")
    stop = threading.Event()
    seen: list[str] = []
    failed: list[grpc.RpcError] = []

    def load() -> None:
        with grpc.insecure_channel(ingress.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = UserDefinedServiceStub(channel)
            while not stop.wait(PACE_S):
                try:
                    seen.append(stub.__call__(FOO, metadata=(("application", "changing"),)).greeting[:2])
                except grpc.RpcError as error:  # a failed call does not end the loop
                    failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    with grpc.insecure_channel(ingress.address) as channel:
        stub = UserDefinedServiceStub(channel)
        # The only replica of v4 leaves before that of v5 starts: calls wait in between.
        for version, number in (("v2", 2), ("v3", 2), ("v4", 1), ("v5", 1)):
            deploy(apps.Guide.options(num_replicas=number).bind(version), "changing")
            answers = {stub.__call__(FOO, metadata=(("application", "changing"),)).greeting[:2] for _ in range(200)}
            assert answers == {version}
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) >= {"v1", "v2"}
    assert not failed, (len(failed), len(seen), failed[0])


def test_a_deployment_can_be_renamed(deploy: Any, ingress: Any) -> None:
    with grpc.insecure_channel(ingress.address) as channel:
        stub = UserDefinedServiceStub(channel)
        for version in ("Before", "After", "Zero"):  # not sorted
            deploy(apps.Guide.options(name=version).bind(version), "renamed")
            assert stub.__call__(FOO, metadata=(("application", "renamed"),)).greeting.startswith(version)


def test_autoscaling_counts_grpc_calls(deploy: Any, ingress: Any) -> None:
    scaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 0.2,
        "metrics_interval_s": 0.1,
        "look_back_period_s": 0.5,
    }
    deploy(apps.Sleeper.options(autoscaling_config=scaling).bind(), "scaled")
    with grpc.insecure_channel(ingress.address) as channel:
        stub = UserDefinedServiceStub(channel)
        calls = [stub.__call__.future(FOO, metadata=(("application", "scaled"),)) for _ in range(8)]
        deadline = time.monotonic() + 30
        while (replicas := replicas_of("scaled")) < 2:
            assert time.monotonic() < deadline, f"still {replicas} replicas with {len(calls)} calls"
            time.sleep(0.2)
        for call in calls:
            call.cancel()


def replicas_of(name: str) -> int:
    return sum(
        len(deployment.endpoints)
        for app in sdk.status().applications
        if app.name == name
        for deployment in app.deployments
    )

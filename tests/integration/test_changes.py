"""Changes of applications under load."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from tests.integration import apps
from tests.integration.clients import FOO
from tests.support.deadlines import PACE_S


@pytest.fixture(autouse=True, scope="module")
def app(deploy: Any) -> None:
    deploy(apps.Guide.bind("v1"), "changing")


def test_redeploy_under_load_loses_nothing_and_later_calls_reach_the_new_version(deploy: Any, ingress: Any) -> None:
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

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    with grpc.insecure_channel(ingress.address) as channel:
        stub = UserDefinedServiceStub(channel)
        before = stub.__call__(FOO, metadata=(("application", "changing"),)).greeting[:2]
        # The only replica leaves before that of v2 starts: calls wait in between.
        # tests/integration/test_options_under_load.py redeploys with one replica fewer.
        for version, number in (("v2", 1), ("v3", 2)):
            deploy(apps.Guide.options(num_replicas=number).bind(version), "changing")
            answers = {stub.__call__(FOO, metadata=(("application", "changing"),)).greeting[:2] for _ in range(50)}
            assert answers == {version}
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) >= {before, "v2"}
    assert not failed, (len(failed), len(seen), failed[0])


def test_a_deployment_can_be_renamed(deploy: Any, ingress: Any) -> None:
    with grpc.insecure_channel(ingress.address) as channel:
        stub = UserDefinedServiceStub(channel)
        for version in ("Before", "Zero"):  # the first is sorted before the deployment that it replaces
            deploy(apps.Guide.options(name=version).bind(version), "changing")
            assert stub.__call__(FOO, metadata=(("application", "changing"),)).greeting.startswith(version)

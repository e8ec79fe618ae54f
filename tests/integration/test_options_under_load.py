"""Changes of the ingress's options under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import ray
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import sdk
from sdk._ingress.cluster import NAMESPACE, find_controller, proxy_name
from tests.integration import apps
from tests.integration.clients import FOO, metadata_for
from tests.support.deadlines import wait_until

TUNED = metadata_for("tuned")
LIMIT = 1 << 20
TOO_LONG = UserDefinedMessage(name="x" * LIMIT)
SERVICE, OTHER = "userdefinedprotos.UserDefinedService", "userdefinedprotos.ImageClassificationService"
# Twenty calls reach both replicas.
MANY = range(20)


def running() -> sdk.GrpcOptions:
    """Return the running ingress's options; wait while the controller restarts."""
    deadline = time.monotonic() + 30
    while True:
        try:
            options: sdk.GrpcOptions = ray.get(find_controller().status.remote(), timeout=30).options
        except ray.exceptions.ActorUnavailableError:  # a failed attempt is repeated
            assert time.monotonic() < deadline, "it did not come back"
            time.sleep(0.05)
        else:
            return options


def is_healthy() -> bool:
    try:
        status = sdk.status()
    except sdk.ClusterError:
        return False
    (application,) = (app for app in status.applications if app.name == "tuned")
    return status.is_healthy and len(application.deployments[0].endpoints) == 2


@pytest.fixture(scope="module")
def before(deploy: Any) -> Iterator[sdk.GrpcOptions]:
    """The options of the session's ingress, restored for other tests."""
    deploy(apps.Guide.options(num_replicas=2).bind("v1"), "tuned")
    options = running()
    yield options
    wait_until(is_healthy, 30)
    sdk.start(options)
    assert running() == options


class Callers:
    """Four threads that make unary and streaming calls in turn, without a pause, until the block ends."""

    def __init__(self, address: str) -> None:
        self._address, self._stop = address, threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(4)]
        self.answered, self.failed = 0, list[grpc.RpcError]()

    def _call(self) -> None:
        with grpc.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = UserDefinedServiceStub(channel)
            while not self._stop.is_set():
                try:
                    stub.__call__(FOO, metadata=TUNED)
                    assert len(list(stub.Streaming(FOO, metadata=TUNED))) == 10
                    self.answered += 1
                except grpc.RpcError as error:  # a failed call does not end the loop
                    self.failed.append(error)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def codes(stub: UserDefinedServiceStub, request: UserDefinedMessage) -> set[str]:
    found = set()
    for _ in MANY:
        try:
            stub.__call__(request, metadata=TUNED)
            found.add("OK")
        except grpc.RpcError as error:  # a failed call does not end the loop
            found.add(error.code().name)
    return found


def test_options_change_under_load_and_stay(
    before: sdk.GrpcOptions, ingress: Any, channel: grpc.Channel, deploy: Any
) -> None:
    stub = UserDefinedServiceStub(channel)
    changed = replace(
        before,
        request_timeout_s=30.0,
        route_by_service=True,
        error_details="message",
        max_receive_message_length=LIMIT,
        grpc_servicer_functions=(SERVICE,),
    )
    (proxy,) = sdk.status().proxies
    with Callers(ingress.address) as callers:
        assert codes(stub, TOO_LONG) == {"OK"}
        sdk.start(changed)
        assert codes(stub, TOO_LONG) == {"RESOURCE_EXHAUSTED"}, "it applies in every replica"
        ray.kill(find_controller(), no_restart=False)
        assert running() == changed, "the next controller has it from the start"
        ray.kill(ray.get_actor(proxy_name(proxy.node_id), namespace=NAMESPACE), no_restart=False)
        wait_until(is_healthy, 30)
        deploy(apps.Guide.options(num_replicas=2).bind("v2"), "tuned")
        assert codes(stub, TOO_LONG) == {"RESOURCE_EXHAUSTED"}, "new replicas have it, too"
        sdk.start(replace(changed, max_receive_message_length=2 * LIMIT))
        assert codes(stub, TOO_LONG) == {"OK"}
    assert callers.answered > 100
    assert not callers.failed, (len(callers.failed), callers.answered, callers.failed[0])
    assert sdk.status().proxies[0].envoy_pid == proxy.envoy_pid, "Envoy was not restarted"


def test_the_services_that_clients_reach_change(before: sdk.GrpcOptions, channel: grpc.Channel) -> None:
    stub = UserDefinedServiceStub(channel)
    sdk.start(replace(before, grpc_servicer_functions=(OTHER,)))
    assert codes(stub, FOO) == {"UNIMPLEMENTED"}
    sdk.start(before)
    assert codes(stub, FOO) == {"OK"}


def test_fixed_options_are_named_and_nothing_changes(before: sdk.GrpcOptions) -> None:
    running_before = running()
    with pytest.raises(sdk.IngressError) as raised:
        sdk.start(replace(before, access_log="/var/log/calls", request_timeout_s=7.0, max_metadata_bytes=4096))
    text = str(raised.value)
    assert "request_timeout_s None → 7.0" in text
    assert "and max_metadata_bytes, access_log can't change at run time" in text
    assert "sdk shutdown" in text
    assert running() == running_before

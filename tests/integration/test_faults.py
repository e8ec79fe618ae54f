"""Crashes of parts of the ingress: calls continue, and the part is restarted."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Collection
from typing import Any

import grpc
import pytest
import ray
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub
from user_defined_protos_sdk import UserDefinedServiceHandle

import sdk
from sdk._ingress.cluster import NAMESPACE, find_controller, proxy_name
from sdk._replica_protocol import REPLICA_DIED
from tests.integration import apps
from tests.integration.clients import FOO, routed_replicas
from tests.support.deadlines import PACE_S, wait_until
from tests.support.processes import raylet_pid, thread_names, workers


@pytest.fixture(autouse=True, scope="module")
def app(deploy: Any) -> None:
    deploy(apps.Guide.options(num_replicas=2).bind(), "faulty")


@pytest.fixture
def call(ingress: Any) -> Any:
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(ingress.address, options=options) as channel:
        stub = UserDefinedServiceStub(channel)
        yield lambda: stub.__call__(FOO, metadata=(("application", "faulty"),), timeout=5)


def answers(call: Any) -> bool:
    try:
        return bool(call().num == 60)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return False
        raise  # calls may fail meanwhile, but only with a status that clients may retry


def healthy_status(without: Collection[str] = ()) -> sdk.Status | None:
    """Return the status if everything is healthy, with at most one of the earlier replicas."""
    try:
        status = sdk.status()
    except sdk.ClusterError:
        return None
    now = replicas(status)
    return status if status.is_healthy and len(now) == 2 and len(now.intersection(without)) < 2 else None


def is_healthy(without: Collection[str] = ()) -> bool:
    return healthy_status(without) is not None


def replicas(status: sdk.Status) -> set[str]:
    (application,) = (app for app in status.applications if app.name == "faulty")
    return set(application.deployments[0].endpoints)


def envoy_pid() -> int:
    status = healthy_status()
    return status.proxies[0].envoy_pid if status is not None else 0


def envoy_after(last: int) -> int:
    """Wait until another Envoy than the last one runs and everything is healthy, and return its process id."""
    found = [last]

    def is_there() -> bool:
        found.append(envoy_pid())
        return found[-1] not in (0, last)

    wait_until(is_there)
    return found[-1]


def proxy_actor() -> Any:
    return ray.get_actor(proxy_name(sdk.status().proxies[0].node_id), namespace=NAMESPACE)


def test_a_replica_opens_no_connection_to_the_gcs_of_its_own() -> None:
    replicas = workers(raylet_pid(sdk.status().proxies[0].node_id), "ray::ServeReplica:faulty:")
    assert len(replicas) == 2
    for pid in replicas:
        threads = thread_names(pid)
        assert "worker.io" in threads, "these are the names of Ray's threads"
        assert "global.accessor" not in threads, "it would wake up five times a second as long as the replica runs"


def test_a_killed_envoy_is_replaced(call: Any, ingress: Any) -> None:
    first = envoy_after(0)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: answers(call))
    second = envoy_after(first)
    os.kill(second, signal.SIGKILL)
    envoy_after(second)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", ingress.port)) == 0, "healthy means that the next Envoy listens"


def test_calls_continue_without_the_controller(call: Any) -> None:
    handle = UserDefinedServiceHandle.of_application("faulty")
    ray.kill(find_controller(), no_restart=False)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert call().num == 60, "calls do not need the controller"
        assert handle(FOO).result().num == 60
        time.sleep(PACE_S)
    wait_until(is_healthy)


@pytest.mark.parametrize("how", ["ray.kill", "kill -9"])
def test_calls_continue_without_the_proxy_actor(call: Any, how: str) -> None:
    handle = UserDefinedServiceHandle.of_application("faulty")
    before, actor = envoy_after(0), proxy_actor()  # the last test may have ended a proxy
    if how == "ray.kill":
        ray.kill(actor, no_restart=False)
    else:
        raylet = raylet_pid(sdk.status().proxies[0].node_id)
        wait_until(lambda: len(workers(raylet, "ray::Proxy")) == 1)  # the last one may have ended a moment ago
        (pid,) = workers(raylet, "ray::Proxy")
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert call().num == 60, "calls do not need the proxy actor"
        assert handle(FOO).result().num == 60
        time.sleep(PACE_S)
    assert envoy_after(0) == before, "the next actor has adopted Envoy"


def stream_until_it_dies(stub: UserDefinedServiceStub, how: str) -> None:
    """Let a replica die in the middle of a stream, which ends UNAVAILABLE."""
    metadata = (("application", "faulty"), ("request_id", "a stream's"))
    stream = stub.Streaming(UserDefinedMessage(name="you", origin=how), metadata=metadata)
    assert next(stream).greeting == "0: Hello you"
    with pytest.raises(grpc.RpcError) as raised:
        list(stream)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == REPLICA_DIED
    assert dict(raised.value.trailing_metadata())["request_id"] == "a stream's"


def test_the_other_replica_serves_when_one_dies_and_calls_wait_for_the_next_when_both_are_dead(
    call: Any, channel: grpc.Channel
) -> None:
    stub, before, metadata = UserDefinedServiceStub(channel), replicas(sdk.status()), (("application", "faulty"),)
    stream_until_it_dies(stub, apps.LAST_WORDS)
    for _ in range(100):
        assert call().num == 60, "the other replica serves at once"
    with pytest.raises(grpc.RpcError) as raised:
        stub.__call__(UserDefinedMessage(origin=apps.LAST_WORDS), metadata=metadata)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    wait_until(lambda: (now := routed_replicas("faulty")) is not None and before.isdisjoint(now))
    assert stub.__call__(FOO, metadata=metadata, timeout=60).num == 60, "it waits for the next replica"
    wait_until(lambda: is_healthy(without=before))


def test_a_replica_whose_handler_exits_ends_after_its_answer_and_is_replaced(call: Any, channel: grpc.Channel) -> None:
    stub, before = UserDefinedServiceStub(channel), replicas(sdk.status())
    with pytest.raises(grpc.RpcError) as raised:
        stub.__call__(UserDefinedMessage(origin=apps.SYSTEM_EXIT), metadata=(("application", "faulty"),), timeout=30)
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert raised.value.details().rstrip().endswith("SystemExit: 3")
    wait_until(lambda: answers(call) and is_healthy(without=before))


def test_a_stream_of_a_replica_that_ray_kills_is_unavailable(channel: grpc.Channel) -> None:
    before = replicas(sdk.status())
    stream_until_it_dies(UserDefinedServiceStub(channel), apps.RAY_KILL)
    wait_until(lambda: is_healthy(without=before))

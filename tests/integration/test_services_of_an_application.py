"""Routing of an application's services to its deployments, and isolation of their failures."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import ray
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from store_pb2 import Key
from store_pb2_grpc import ClerkStub, StoreStub, VaultStub
from store_sdk import StoreHandle

import sdk
from sdk._ingress.cluster import find_controller
from sdk._ingress.registry import Replica
from sdk._xds.snapshot import Endpoint
from sdk.cli.status_view import as_text
from sdk.errors import RpcError
from sdk.handles import HandleUnary
from tests.integration import apps, store_apps
from tests.integration.clients import error_of, metadata_for, routed_replicas

STORE = metadata_for("store")


@pytest.fixture(autouse=True, scope="module")
def store(deploy: Any) -> None:
    deploy(store_apps.store(), "store")


def test_each_service_goes_to_its_deployment(channel: grpc.Channel) -> None:
    assert StoreStub(channel).Get(Key(), metadata=STORE).text.isdigit()
    assert ClerkStub(channel).Greet(Key(text="you"), metadata=STORE).text == "welcome you"


def test_only_handles_reach_a_deployment_that_is_not_exposed(channel: grpc.Channel) -> None:
    assert StoreStub(channel).Put(Key(text="you"), metadata=STORE).text == "gold for you"
    error = error_of(VaultStub(channel).Open, Key(), metadata=STORE)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == "Application 'store' has no method 'Open' of service 'store.Vault'."
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(service="store.Store"), metadata=STORE).status == 1
    error = error_of(health.Check, health_pb2.HealthCheckRequest(service="store.Vault"), metadata=STORE)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    known = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert known & {"store.Store", "store.Clerk", "store.Vault"} == {"store.Store", "store.Clerk"}
    assert "  deployment Vault: HEALTHY, 1 replica, reached by handles" in as_text(sdk.status())


def test_an_application_that_envoy_rejects_is_named_and_blocks_no_other(channel: grpc.Channel) -> None:
    controller: Any = find_controller()
    # A node with a link-local address, of an interface that the proxy's machine does not have.
    unreachable = Endpoint("unreachable", "fe80::1%nowhere", 4000, "another node")
    bad = Replica("refused", "Elsewhere", ("else.Where",), unreachable)
    reason = "application 'refused': Envoy rejected ClusterLoadAssignment: malformed IP address: fe80::1%nowhere"
    options = ray.get(controller.lease.remote()).options
    try:
        began = time.monotonic()
        assert ray.get(controller.register.remote(bad, b"", 10.0, options))
        good = Replica("store", "Elsewhere", ("else.Where",), Endpoint("good", "10.0.0.1", 4000, "another node"))
        assert ray.get(controller.register.remote(good, b"", 10.0, options))
        assert ray.get(controller.deregister.remote("good", 10.0)), "acknowledged"
        assert time.monotonic() - began < 9, "no call waited in vain"
        with pytest.raises(sdk.IngressError, match=reason):
            sdk.run(apps.Guide.bind(), name="refused")
        status = sdk.status()
        assert not status.is_healthy
        assert reason in as_text(status)
        assert ClerkStub(channel).Greet(Key(text="you"), metadata=STORE).text == "welcome you"
    finally:
        ray.get(controller.deregister.remote("unreachable", 10.0))
    wait_until(lambda: not any(proxy.problem for proxy in sdk.status().proxies))
    from sdk._serve.api import delete

    delete("refused")


def test_idempotent_calls_are_retried_after_a_crash_of_their_replica(channel: grpc.Channel) -> None:
    stub, handle = StoreStub(channel), StoreHandle.of_application("store")

    def code(method: Any) -> str:
        try:
            if isinstance(method, HandleUnary):
                method(Key(), timeout=10).result()
            else:
                method(Key(), metadata=STORE, timeout=10)
        except grpc.RpcError as error:
            return error.code().name
        except RpcError as error:
            return error.code.name
        return "OK"

    def calls(method: Any) -> list[str]:
        ended = []
        while not is_over.is_set():
            ended.append(code(method))
        return ended

    before, is_over = routed_replicas("store"), threading.Event()
    assert before is not None
    victim = int(stub.Get(Key(), metadata=STORE).text)
    with ThreadPoolExecutor(24) as threads:
        gets = [threads.submit(calls, way.Get) for way in (stub, handle) for _ in range(6)]
        puts = [threads.submit(calls, way.Put) for way in (stub, handle) for _ in range(6)]
        try:
            time.sleep(0.7)  # of calls
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: (now := routed_replicas("store")) is not None and not before <= now)
            assert {code(way.Put) for way in (stub, handle) for _ in range(50)} == {"OK"}
        finally:
            is_over.set()
        got = [thread.result() for thread in gets]
        put = [thread.result() for thread in puts]
    for way in range(6), range(6, 12):
        answered = [ended for number in way for ended in got[number]]
        assert set(answered) == {"OK"}
        assert len(answered) > 50
        not_repeated = {ended for number in way for ended in put[number]}
        assert not_repeated == {"OK", "UNAVAILABLE"}, "calls that had begun are not retried"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)

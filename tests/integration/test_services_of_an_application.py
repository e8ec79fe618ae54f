"""Routing of an application's services to its deployments, and isolation of their failures."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
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
from sdk.options import GrpcOptions
from tests.integration import apps, store_apps
from tests.integration.clients import error_of, metadata_for, routed_replicas
from tests.support.cluster import Ingress
from tests.support.deadlines import wait_until
from tests.web.http_client import Answer, ask_at

STORE = metadata_for("store")


@pytest.fixture(autouse=True, scope="module")
def store(deploy: Any) -> None:
    deploy(store_apps.store(), "store")


def test_each_service_goes_to_its_deployment(channel: grpc.Channel) -> None:
    assert StoreStub(channel).Get(Key(), metadata=STORE).text.isdigit()
    assert ClerkStub(channel).Greet(Key(text="you"), metadata=STORE).text == "welcome you"


def test_each_service_goes_to_its_deployment_over_json(ingress: Ingress) -> None:
    def ask(method: str, **fields: str) -> Answer:
        return ask_at(ingress.address, f"/store.{method}", fields, {"application": "store"})

    assert ask("Store/Get").json["text"].isdigit()
    assert ask("Clerk/Greet", text="you").json == {"text": "welcome you"}
    refused = ask("Vault/Open")
    assert (refused.status, refused.json["code"]) == (404, "unimplemented")
    assert refused.json["message"] == "Application 'store' has no method 'Open' of service 'store.Vault'."


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


@contextmanager
def renewed(controller: Any, replica: Replica, options: GrpcOptions) -> Iterator[None]:
    """Renew the lease of a replica without a process: a start on a busy machine takes longer than it lasts."""
    is_over = threading.Event()

    def renew() -> None:
        while not is_over.wait(1):
            ray.get(controller.register.remote(replica, b"", 10.0, options))

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


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
        with renewed(controller, bad, options), pytest.raises(sdk.IngressError, match=reason):
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


def test_idempotent_calls_are_retried_after_a_crash_of_their_replica(channel: grpc.Channel, tmp_path: Path) -> None:
    stub, handle = StoreStub(channel), StoreHandle.of_application("store")
    before = routed_replicas("store")
    assert before is not None
    victim = int(stub.Get(Key(), metadata=STORE).text)

    def by_client(method: str, key: Key) -> None:
        getattr(stub, method)(key, metadata=STORE, timeout=60)

    def by_handle(method: str, key: Key) -> None:
        async def call() -> None:
            await getattr(handle, method)(key, timeout=60)

        asyncio.run(call())  # each loop chooses the replica by its own calls

    def call_victim(call: Callable[[str, Key], None], method: str, file: Path) -> str:
        while not file.exists():  # the other replica answers at once
            try:
                call(method, Key(text=f"{victim} {file}"))
            except grpc.RpcError as error:
                return error.code().name
            except RpcError as error:
                return error.code.name
        return "OK"

    calls = list(product((by_client, by_handle), ("Get", "Put"), range(3)))
    files = [tmp_path / str(number) for number in range(len(calls))]
    with ThreadPoolExecutor(len(files)) as threads:
        ends = [threads.submit(call_victim, *call[:2], file) for call, file in zip(calls, files, strict=True)]
        wait_until(lambda: all(file.exists() for file in files))
        os.kill(victim, signal.SIGKILL)
        ended = {(call.__name__, method, end.result()) for (call, method, _), end in zip(calls, ends, strict=True)}
    assert ended == {
        (way, method, code)
        for way in ("by_client", "by_handle")
        for method, code in (("Get", "OK"), ("Put", "UNAVAILABLE"))
    }, "only idempotent calls are retried"
    wait_until(lambda: (now := routed_replicas("store")) is not None and not before <= now)
    for _ in range(50):
        stub.Put(Key(), metadata=STORE, timeout=10)
        handle.Put(Key(), timeout=10).result()

"""Parts of the ingress that die: what serves goes on, and the part comes back."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import apps
import grpc
import pytest
import ray
from clients import FOO
from processes import raylet_pid, workers
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import sdk
from sdk.ingress.actors import NAMESPACE, find_controller, proxy_name


@pytest.fixture(autouse=True, scope="module")
def app(deploy: Any) -> None:
    deploy(apps.Guide.options(num_replicas=2).bind(), "faulty")


@pytest.fixture
def call(ingress: Any) -> Any:
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(ingress.address, options=options) as channel:
        stub = UserDefinedServiceStub(channel)
        yield lambda: stub.__call__(FOO, metadata=(("application", "faulty"),), timeout=5)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come back"
        time.sleep(0.05)


def answers(call: Any) -> bool:
    try:
        return bool(call().num == 60)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return False
        raise  # what fails meanwhile must be worth a retry


def is_healthy(replicas: int = 2) -> bool:
    try:
        status = sdk.status()
    except sdk.ClusterError:
        return False
    (application,) = (app for app in status.applications if app.name == "faulty")
    return status.is_healthy and len(application.deployments[0].endpoints) == replicas


def envoy_pid() -> int:
    return sdk.status().proxies[0].envoy_pid if is_healthy() else 0


def proxy_actor() -> Any:
    return ray.get_actor(proxy_name(sdk.status().proxies[0].node_id), namespace=NAMESPACE)


def test_envoy(call: Any, ingress: Any) -> None:
    before = envoy_pid()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: answers(call), 10)
    wait_until(lambda: envoy_pid() not in (0, before), 10)
    os.kill(envoy_pid(), signal.SIGKILL)
    wait_until(lambda: not is_healthy(), 10)
    wait_until(is_healthy, 10)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", ingress.port)) == 0, "healthy means that the next Envoy listens"


def test_controller(call: Any) -> None:
    ray.kill(find_controller(), no_restart=False)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert call().num == 60, "calls do not need the controller"
    wait_until(is_healthy, 20)


@pytest.mark.parametrize("how", ["ray.kill", "kill -9"])
def test_proxy_actor(call: Any, how: str) -> None:
    before, actor = envoy_pid(), proxy_actor()
    if how == "ray.kill":
        ray.kill(actor, no_restart=False)
    else:
        (pid,) = workers(raylet_pid(sdk.status().proxies[0].node_id), "ray::Proxy")
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert call().num == 60, "calls do not need the proxy actor"
    wait_until(is_healthy, 20)
    assert envoy_pid() == before, "the next actor has adopted Envoy"


def test_replica(call: Any, channel: grpc.Channel) -> None:
    stub = UserDefinedServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.__call__(UserDefinedMessage(origin=apps.LAST_WORDS), metadata=(("application", "faulty"),))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    for _ in range(100):
        assert call().num == 60, "the other replica serves at once"
    wait_until(is_healthy, 60)

"""A program: a Ray cluster of two nodes, each in a separate network if possible. Prints its findings as JSON.

In network namespaces, as on two machines, one node can't reach the abstract unix sockets of the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import grpc
import ray
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from probe_pb2 import Ask
from probe_sdk import AsyncProbeHandle
from ray.scripts.scripts import drain_node
from ray.serve.generated.serve_pb2 import HealthzRequest
from ray.serve.generated.serve_pb2_grpc import RayServeAPIServiceStub
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import sdk
from sdk._serve.api import delete, stop_ingress
from tests.integration.node_app import Inner, Where
from tests.support.deadlines import happens, wait_until
from tests.support.namespaces import machines
from tests.support.processes import commands, ingress_folder, is_alive
from tests.support.small_ray import leave_out_processes

BEGAN = time.monotonic()
METADATA = (("application", "spread"),)
# `ray start`, with fewer processes.
START_NODE = """\
from ray.scripts.scripts import start
from tests.support.small_ray import leave_out_processes

leave_out_processes()
start()
"""


def start_head(stack: contextlib.ExitStack, address: str, system_config: dict[str, int] | None = None) -> None:
    """Start a Ray of one node at an address, with its own folder, until the stack is closed."""
    leave_out_processes()
    temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address=address,
        _temp_dir=temporary,
        _system_config=system_config,
    )
    stack.callback(ray.shutdown)


def main(port: int, uses_namespaces: bool) -> None:
    with contextlib.ExitStack() as stack:
        here, there, prefix = "127.0.0.1", "127.0.0.1", []
        if uses_namespaces:
            here, ((namespace, there),) = stack.enter_context(machines(1))
            prefix = ["ip", "netns", "exec", namespace]
        # Ray notices a lost node after about two seconds instead of fifteen.
        start_head(stack, here, {"health_check_period_ms": 500})
        raylet = stack.enter_context(second_node(prefix, there))
        look(port, here, there, raylet, uses_namespaces)


def look(port: int, here: str, there: str, raylet: int, uses_namespaces: bool) -> None:
    host = "0.0.0.0" if uses_namespaces else "127.0.0.1"
    sdk.start(sdk.GrpcOptions(host=host, port=port, proxy_location="HeadOnly"))
    sdk.run(Where.bind(), name="spread")
    report("with HeadOnly there is one proxy", len(sdk.status().proxies))
    nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    head = sdk.status().proxies[0].node_id
    (other,) = nodes - {head}
    with grpc.insecure_channel(f"{here}:{port}") as channel:
        report("the head's proxy reaches", names(answers(channel, 2), head))
    sdk.run(Inner.bind(), name="inner")
    pinned = NodeAffinitySchedulingStrategy(other, soft=False)
    there_too = ray.remote(num_cpus=0, scheduling_strategy=pinned)(through_handle)
    for name, called in ("head", through_handle()), ("other", ray.get(there_too.remote())):
        report(f"handles on the {name} node reach", [names(set(nodes), head) for nodes in called])
    delete("inner")
    if uses_namespaces:
        stop_ingress()
        sdk.start(sdk.GrpcOptions(host=host, port=port))
        wait_until(lambda: has_converged(2, 2))
        report("with EveryNode there are proxies on", names({proxy.node_id for proxy in sdk.status().proxies}, head))
        with grpc.insecure_channel(f"{there}:{port}") as channel:
            report("the other node's proxy reaches", names(answers(channel, 2), head))
            report("its health", health(channel))
            drain(other)
            wait_until(lambda: health(channel)[0] != "SERVING")
            report("its health while it is drained", health(channel))
        with grpc.insecure_channel(f"{here}:{port}") as channel:
            report("the health of the head meanwhile", health(channel))
    envoys = commands(str(ingress_folder(other)))
    report("processes of the other node's proxy", len(envoys))
    with grpc.insecure_channel(f"{here}:{port}") as channel:
        os.kill(raylet, signal.SIGKILL)
        report("codes after a node is lost", codes(channel, seconds=3.0))
        # At the first look on an idle machine: a busy one needs longer to see that the replica has gone.
        report("then calls succeed", happens(lambda: codes(channel, seconds=2.0) == ["OK"]))
        wait_until(lambda: has_converged(1, 1), 60)
        report("then the head's proxy reaches", names(answers(channel, 1), head))
    report("the lost node is removed", True)
    wait_until(lambda: not any(is_alive(pid) for pid in envoys) and not ingress_folder(other).exists())
    report("its Envoy is left", any(is_alive(pid) for pid in envoys))


def through_handle() -> list[list[str]]:
    """Return the nodes that answer calls one at a time, two dozen at once, and a conversation."""
    handle = AsyncProbeHandle.of_application("inner")
    one_at_a_time = [handle.Unary(Ask(), timeout=20).result().text for _ in range(20)]
    calls = [handle.Unary(Ask(number=500), timeout=20) for _ in range(24)]
    conversation = [reply.text for reply in handle.Both([Ask(), Ask()], timeout=20)]
    return [one_at_a_time, [call.result().text for call in calls], conversation[:1]]


@contextlib.contextmanager
def second_node(prefix: list[str], address: str) -> Iterator[int]:
    """Join a node to the cluster, and yield the process id of its raylet."""
    before = commands("raylet/raylet ").keys()
    command = [*prefix, sys.executable, "-c", START_NODE, "--block", "--num-cpus=4"]
    command += [f"--address={ray.get_runtime_context().gcs_address}", f"--node-ip-address={address}"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2, 60)
            (raylet,) = (
                pid
                for pid, words in commands("raylet/raylet ").items()
                if pid not in before and f"--node_ip_address={address}" in words and _is_of(words)
            )
            yield raylet
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _is_of(words: str) -> bool:
    return f"--gcs-address={ray.get_runtime_context().gcs_address}" in words


def answers(channel: grpc.Channel, count: int) -> set[str]:
    """Return the nodes whose replicas answer, once there are enough: Envoy first health-checks each replica."""
    stub, found = UserDefinedServiceStub(channel), set()

    def call() -> bool:
        found.add(stub.__call__(UserDefinedMessage(), metadata=METADATA, timeout=10, wait_for_ready=True).greeting)
        return len(found) >= count

    wait_until(call)
    return found


def drain(node_id: str) -> None:
    """Notify Ray that a machine will be preempted."""
    arguments = [f"--address={ray.get_runtime_context().gcs_address}", f"--node-id={node_id}"]
    arguments += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test", "--deadline-remaining-seconds=600"]
    drain_node(arguments, standalone_mode=False)


def health(channel: grpc.Channel) -> list[str]:
    """Return the results of grpc.health.v1 and of Ray Serve's Healthz."""
    stub, serve = HealthStub(channel), RayServeAPIServiceStub(channel)
    status = HealthCheckResponse.ServingStatus.Name(stub.Check(HealthCheckRequest(), timeout=5).status)
    try:
        return [status, serve.Healthz(HealthzRequest(), timeout=5).message]
    except grpc.RpcError as error:
        return [status, f"{error.code().name}: {error.details()}"]


def codes(channel: grpc.Channel, seconds: float) -> list[str]:
    """Return the status codes of calls during the given time."""
    stub, end, seen = UserDefinedServiceStub(channel), time.monotonic() + seconds, set()
    while time.monotonic() < end:
        try:
            stub.__call__(UserDefinedMessage(), metadata=METADATA, timeout=5)
            seen.add("OK")
        except grpc.RpcError as error:
            seen.add(error.code().name)
        time.sleep(0.05)
    return sorted(seen)


def has_converged(proxies: int, endpoints: int) -> bool:
    try:
        status = sdk.status()
    except sdk.ClusterError:
        return False
    (application,) = status.applications
    routed = application.deployments[0].endpoints
    return len(status.proxies) == proxies and all(p.up_to_date for p in status.proxies) and len(routed) == endpoints


def names(nodes: set[str], head: str) -> list[str]:
    return sorted("head" if node == head else "other" for node in nodes)


def report(what: str, value: Any) -> None:
    print(json.dumps([what, value]), flush=True)
    print(f"{time.monotonic() - BEGAN:.1f} s: {what}", file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "namespaces")

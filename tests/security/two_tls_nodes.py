"""A program: two nodes with mutual TLS. Calls cross them while certificates are replaced; strangers are refused.

``node_tls.py`` starts it. Prints what it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import ray
from cryptography import x509
from probe_pb2 import Ask
from probe_sdk import AsyncProbeHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import sdk
from sdk._guard.between_nodes import own_between_nodes
from sdk._ingress.cluster import find_controller
from sdk._ingress.envoy.admin import admin_request
from sdk._replica_protocol import HEALTH_CHECK_PATH
from sdk._xds.snapshot import Endpoint
from tests.integration.node_app import Inner, Where
from tests.integration.several_nodes import METADATA, second_node, start_head
from tests.support.deadlines import wait_until
from tests.support.loops import PATIENCE_S
from tests.support.ports import free_port
from tests.support.processes import ingress_folder

_LONGEST_S = 60.0


def main(folder: Path, here: str, there: str, namespace: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # do not leave the nodes
    with contextlib.ExitStack() as stack:
        start_head(stack, here)
        stack.enter_context(second_node(["ip", "netns", "exec", namespace], there))
        assert own_between_nodes().mode == "tls"
        port = free_port()
        sdk.start(sdk.GrpcOptions(host="0.0.0.0", port=port))
        deploy()
        assert "RAY_USE_TLS" not in sdk.status().problem
        nodes = {node["NodeID"] for node in ray.nodes()}
        with load([f"{here}:{port}", f"{there}:{port}"], nodes) as reached:
            replace_certificates(folder)
        for caller, calls in reached.items():
            assert calls.keys() == nodes, f"{caller} has reached {calls}, not both nodes"
            print(f"{caller}: {calls.total()} calls to both nodes, none failed")
        assert len(reached) == 4


def deploy() -> None:
    """Deploy both applications, again if they are there: one replica a node of each, and a new process for each."""
    sdk.run(Where.bind(), name="spread")
    sdk.run(Inner.bind(), name="inner")
    wait_until(lambda: len(endpoints()) == 4, _LONGEST_S)


def replace_certificates(folder: Path) -> None:
    """Replace the certificates of all nodes twice, the second time by those of another authority."""
    check("node", folder)
    put(folder, "renewed", "node")
    check("renewed", folder)
    before = {end.replica_id for end in endpoints()}
    deploy()
    wait_until(lambda: not before & {end.replica_id for end in endpoints()}, _LONGEST_S)
    check("renewed, by replicas that started with it", folder)
    (folder / "both.crt").rename(folder / "ca.crt")
    authority = serial_number(folder / "other-ca.crt")
    wait_until(lambda: all(authority in certificates for certificates in envoys()), _LONGEST_S)
    put(folder, "other", "node")
    check("of another authority", folder)


def put(folder: Path, name: str, over: str) -> None:
    """Replace a certificate and its key, as certificate managers do."""
    for suffix in ("key", "crt"):
        (folder / f"{name}.{suffix}").rename(folder / f"{over}.{suffix}")


def check(what: str, folder: Path) -> None:
    """Wait until every replica and Envoy use the certificate of the nodes; replicas refuse everybody without one."""
    expected = serial_number(folder / "node.crt")
    guard = own_between_nodes()
    context = guard.client_context()
    assert context is not None
    stranger = replace(guard, certificate=str(folder / "stranger.crt"), private_key=str(folder / "stranger.key"))
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    found = endpoints()
    for end in found:
        assert shown_by(end, context) == expected, f"{end} shows another certificate"
        assert asyncio.run(answer(end, context)).startswith(b"HTTP/1.1 200 OK")
        for refused in (None, nobody, stranger.client_context()):
            assert asyncio.run(answer(end, refused)) == b"", f"{end} has answered a stranger"
    wait_until(lambda: all(expected in certificates for certificates in envoys()), _LONGEST_S)
    print(f"certificate {what}: {len(found)} replicas and 2 Envoys use it; strangers are refused", flush=True)


def serial_number(path: Path) -> str:
    return f"{x509.load_pem_x509_certificate(path.read_bytes()).serial_number:x}"


def shown_by(end: Endpoint, context: ssl.SSLContext) -> str:
    """Return the serial number of the certificate that a replica shows."""
    with socket.create_connection((end.host, end.port), PATIENCE_S) as plain, context.wrap_socket(plain) as connection:
        shown = connection.getpeercert(binary_form=True)
        assert shown is not None
        return f"{x509.load_der_x509_certificate(shown).serial_number:x}"


async def answer(end: Endpoint, context: ssl.SSLContext | None) -> bytes:
    """Return the first bytes of the response to a health check, or nothing if the connection ends without."""
    try:
        reader, writer = await asyncio.open_connection(end.host, end.port, ssl=context)
        writer.write(f"GET {HEALTH_CHECK_PATH} HTTP/1.1\r\nhost: replica\r\n\r\n".encode())
        try:
            return await asyncio.wait_for(reader.read(100), PATIENCE_S)
        finally:
            writer.transport.abort()
    except (ConnectionError, ssl.SSLError):
        return b""


def envoys() -> list[str]:
    """Return what the Envoy of each node says of its certificates."""
    sockets = [ingress_folder(proxy.node_id) / "admin.sock" for proxy in sdk.status().proxies]
    assert len(sockets) == 2
    return [asyncio.run(admin_request(path, "GET", "/certs")) for path in sockets]


def endpoints() -> list[Endpoint]:
    """Return the replicas in the routing table."""
    snapshot = ray.get(find_controller().status.remote()).snapshot
    applications = (*snapshot.applications, *snapshot.inner)
    return [end for app in applications for deployment in app.deployments for end in deployment.endpoints]


@contextlib.contextmanager
def load(addresses: Iterable[str], nodes: Iterable[str]) -> Iterator[dict[str, Counter[str]]]:
    """Call until the end of the block: each address from here, and through handles from each node.

    Yields:
        The number of calls of each caller to each node, complete after the block.

    Raises:
        Exception: That of the first call that has failed.
    """
    stop, reached = threading.Event(), dict[str, Counter[str]]()
    callers = {}
    for node in nodes:
        pinned = NodeAffinitySchedulingStrategy(node, soft=False)
        callers[f"handles on {node}"] = Caller.options(scheduling_strategy=pinned).remote()  # type: ignore[attr-defined]
    with ThreadPoolExecutor() as threads:
        outer = {address: threads.submit(call_until, stop, address) for address in addresses}
        inner = {name: caller.call.remote() for name, caller in callers.items()}
        try:
            yield reached
        finally:
            stop.set()
            ray.get([caller.stop.remote() for caller in callers.values()])
            reached |= {name: future.result() for name, future in outer.items()}
            reached |= {name: ray.get(future) for name, future in inner.items()}


def call_until(stop: threading.Event, address: str) -> Counter[str]:
    """Call through the Envoy of a node, and return the nodes that have answered."""
    reached: Counter[str] = Counter()
    with grpc.insecure_channel(address) as channel:
        stub = UserDefinedServiceStub(channel)
        while not stop.wait(0.005):
            reply = stub.__call__(UserDefinedMessage(), metadata=METADATA, timeout=PATIENCE_S)
            reached[reply.greeting] += 1
    return reached


@ray.remote(num_cpus=0, max_concurrency=2)
class Caller:
    """Calls through a handle, so many at once that its own node is not enough for them."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def call(self) -> Counter[str]:
        handle, reached = AsyncProbeHandle.of_application("inner"), Counter[str]()
        while not self._stop.is_set():
            calls = [handle.Unary(Ask(number=100), timeout=PATIENCE_S) for _ in range(24)]
            reached.update(call.result().text for call in calls)
        return reached

    def stop(self) -> None:
        self._stop.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

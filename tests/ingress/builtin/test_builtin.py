"""Status of calls without a route, and of those to the proxy's own services while the node is drained."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from sdk import GrpcOptions
from sdk._ingress.builtin.failed_applications import FailedApplications
from sdk._ingress.builtin.services import SERVE_API, BuiltinServices, no_route_status
from sdk._xds.snapshot import Application, Deployment, Snapshot
from tests.support.wire_rig import Peer

NOT_FOUND, UNIMPLEMENTED = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED
PING = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
A, B = Application("a", (Deployment("D", ("t.T", "t.U")),)), Application("b", (Deployment("D", ("t.T",)),))


@pytest.mark.parametrize(
    ("applications", "by_service", "path", "application", "code", "details"),
    [
        ((), False, "/t.T/M", None, NOT_FOUND, f"Application metadata not set. {PING}"),
        ((A, B), False, "/t.T/M", None, NOT_FOUND, f"Application metadata not set. {PING}"),
        ((A, B), False, "/t.T/M", "", NOT_FOUND, f"Application metadata not set. {PING}"),
        ((A, B), False, "/t.X/M", None, UNIMPLEMENTED, "No application serves 't.X'."),
        ((A, B), False, "/", None, UNIMPLEMENTED, "No application serves ''."),
        ((A,), False, "/t.T/M", "x", NOT_FOUND, f"Application 'x' not found. {PING}"),
        ((A,), False, "/t.X/M", None, UNIMPLEMENTED, "Application 'a' has no method 'M' of service 't.X'."),
        ((A, B), False, "/t.X/M", "b", UNIMPLEMENTED, "Application 'b' has no method 'M' of service 't.X'."),
        (
            (A, B),
            True,
            "/t.T/M",
            None,
            NOT_FOUND,
            f"Application metadata not set, and service 't.T' is served by a, b. {PING}",
        ),
        ((A, B), True, "/t.X/M", None, UNIMPLEMENTED, "No application serves 't.X'."),
        (
            (A,),
            False,
            "/ray.serve.RayServeAPIService/X",
            None,
            UNIMPLEMENTED,
            "Service 'ray.serve.RayServeAPIService' has no method 'X'.",
        ),
    ],
)
def test_no_route_status(
    applications: tuple[Application, ...],
    by_service: bool,
    path: str,
    application: str | None,
    code: grpc.StatusCode,
    details: str,
) -> None:
    assert no_route_status(Snapshot(1, applications, by_service), path, application) == (code, details)


def test_the_messages_match_ray_serves_protos() -> None:
    from ray.serve.generated import serve_pb2

    from sdk._gen import serve_api_pb2

    for name in ("ListApplicationsRequest", "ListApplicationsResponse", "HealthzRequest", "HealthzResponse"):
        ours, theirs = (
            [(field.name, field.number, field.type) for field in getattr(module, name).DESCRIPTOR.fields]
            for module in (serve_api_pb2, serve_pb2)
        )
        assert ours == theirs


class Proxy:
    """The proxy's own services, without sockets."""

    def __init__(self, *applications: Application, failed: Collection[str] | Exception = ()) -> None:
        async def no_descriptors(digest: str) -> bytes | None:
            return None

        async def fetch_failed() -> Collection[str]:
            if isinstance(failed, Exception):
                raise failed
            return failed

        self.applications = applications
        self.services = BuiltinServices(lambda: Snapshot(1, self.applications), no_descriptors, fetch_failed)

    async def answer(self, path: str, **headers: str) -> tuple[int, str]:
        """Return status code and message."""
        server = self.services.server(GrpcOptions())
        server.host.attach(asyncio.get_running_loop())
        peer = Peer(server)
        peer.connection.data_received(
            f"POST {path} HTTP/1.1\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n".encode()
            + "".join(f"{key}: {value}\r\n" for key, value in headers.items()).encode()
            + b"\r\n"
        )
        peer.send(Empty())
        peer.end()
        trailers = await peer.answered()
        await server.drain(quiet_s=0, grace_s=0)
        return int(trailers["grpc-status"]), trailers.get("grpc-message", "")

    def get(self, path: str) -> bytes:
        server = self.services.server(GrpcOptions())
        server.host.attach(asyncio.get_running_loop())
        peer = Peer(server)
        peer.connection.data_received(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return peer.transport.written


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
STARTING = (
    UNAVAILABLE,
    "No application is ready yet: the ingress has started, and the first application has not.",
)
DRAINED = (UNAVAILABLE, "This node is being drained.")


@pytest.mark.parametrize(
    ("applications", "failed", "application", "expected"),
    [
        ((), {"x"}, "x", (UNAVAILABLE, "Application 'x' failed to deploy.")),
        ((A, B), {"x", "y"}, "x", (UNAVAILABLE, "Application 'x' failed to deploy.")),
        ((), {"x"}, None, (UNAVAILABLE, "Application 'x' failed to deploy.")),
        ((), {"x", "y"}, None, STARTING),
        ((), {"x"}, "z", STARTING),
        ((), (), "x", STARTING),
        ((A, B), {"x"}, None, (5, f"Application metadata not set. {PING}")),
        ((A,), {"x"}, "z", (5, f"Application 'z' not found. {PING}")),
        ((A,), RuntimeError("Ray Serve is being restarted"), "x", (5, f"Application 'x' not found. {PING}")),
    ],
)
async def test_calls_to_an_application_that_failed_to_deploy(
    applications: tuple[Application, ...], failed: Any, application: str | None, expected: tuple[int, str]
) -> None:
    headers = {"application": application} if application else {}
    assert await Proxy(*applications, failed=failed).answer("/t.T/M", **headers) == expected


async def test_ray_serve_is_asked_once_a_second_for_any_number_of_calls() -> None:
    asked, now = 0, 0.0

    async def fetch() -> Collection[str]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return {str(asked)}

    it = FailedApplications(fetch, clock=lambda: now)
    assert await asyncio.gather(*(it.names() for _ in range(100))) == [{"1"}] * 100
    now = 0.9
    assert await it.names() == {"1"}
    now = 1.1
    assert await it.names() == {"2"}


@pytest.mark.parametrize("method", ["ListApplications", "Healthz"])
async def test_a_drained_proxy_says_so(method: str) -> None:
    proxy = Proxy(A)
    path = f"/{SERVE_API}/{method}"
    assert await proxy.answer(path) == (0, "")
    proxy.services.drain()
    assert await proxy.answer(path) == DRAINED
    proxy.services.drain(False)
    assert await proxy.answer(path) == (0, "")


async def test_an_http_probe_of_a_drained_proxy_fails() -> None:
    proxy = Proxy(A)
    assert proxy.get("/-/healthz").startswith(b"HTTP/1.1 200 OK\r\n")
    assert proxy.get("/-/healthz").endswith(b"\r\n\r\nsuccess")
    proxy.services.drain()
    assert proxy.get("/-/healthz").startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert proxy.get("/-/healthz").endswith(b"\r\n\r\nThis node is being drained.")


async def test_probes_before_the_first_application_and_while_the_node_is_drained() -> None:
    proxy = Proxy()
    assert [status_of(proxy.get(path)) for path in ("/-/live", "/-/ready", "/-/healthz")] == [200, 503, 200]
    assert proxy.get("/-/ready").decode().endswith(f"\r\n\r\n{STARTING[1]}")
    proxy.applications = (A,)
    assert [status_of(proxy.get(path)) for path in ("/-/live", "/-/ready", "/-/healthz")] == [200, 200, 200]
    proxy.services.drain()
    assert [status_of(proxy.get(path)) for path in ("/-/live", "/-/ready", "/-/healthz")] == [200, 503, 503]
    assert proxy.get("/-/ready").endswith(b"\r\n\r\nThis node is being drained.")


async def test_a_call_after_the_last_application_is_not_found_and_before_the_first_unavailable() -> None:
    proxy = Proxy()
    assert await proxy.answer("/t.T/M") == STARTING
    assert await proxy.answer("/t.T/M", application="x") == STARTING
    proxy.applications = (A,)
    proxy.services.notify()
    proxy.applications = ()
    assert await proxy.answer("/t.T/M", application="x") == (5, f"Application 'x' not found. {PING}")
    assert status_of(proxy.get("/-/ready")) == 200


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])

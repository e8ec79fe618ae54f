"""Status of calls without a route."""

from __future__ import annotations

import grpc
import pytest

from sdk._ingress.builtin.services import no_route_status
from sdk._xds.snapshot import Application, Deployment, Snapshot

NOT_FOUND, UNIMPLEMENTED = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED
PING = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
A, B = Application("a", (Deployment("D", ("t.T", "t.U")),)), Application("b", (Deployment("D", ("t.T",)),))


@pytest.mark.parametrize(
    ("applications", "by_service", "path", "application", "code", "details"),
    [
        ((), False, "/t.T/M", None, NOT_FOUND, f"Application metadata not set. {PING}"),
        ((A, B), False, "/t.T/M", None, NOT_FOUND, f"Application metadata not set. {PING}"),
        ((A, B), False, "/t.T/M", "", NOT_FOUND, f"Application metadata not set. {PING}"),
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

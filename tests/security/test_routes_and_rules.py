"""Routes of ``google.api.http`` whose paths look like something that is allowed: the method that answers counts."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdk.testing
from sdk import GrpcOptions
from sdk._web.http_rules import HttpRules, http_routes
from sdk.access import Access, ApiKey, Rule
from tests.support.loops import PATIENCE_S
from tests.web.http_client import ask

KEY = {"x-api-key": "k" * 32}
SHELF, LAMP = "/sdk.routed.Shelf", "/sdk.routed.Lamp"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sdk.testing.Server]:
    """Serve both applications: anyone may call Lamp, and Write of Shelf; a key may call Read, and List."""
    from tests.security.routed import Lamp, Shelf

    keys = Path(tmp_path_factory.mktemp("routed"), "keys")
    keys.touch(mode=0o600)
    keys.write_text(f"batch sha256:{hashlib.sha256(KEY['x-api-key'].encode()).hexdigest()}\n")
    rules = (
        Rule("anyone", methods=("sdk.routed.Lamp", "sdk.routed.Shelf/Write")),
        Rule(ApiKey("batch"), methods=("sdk.routed.Shelf/Read", "sdk.routed.Shelf/List")),
    )
    options = GrpcOptions(access=Access(api_keys=str(keys), rules=rules))
    with sdk.testing.serve({"shelf": Shelf.bind(), "lamp": Lamp.bind()}, options=options) as it:
        yield it


@pytest.mark.parametrize(
    ("verb", "path", "method"),
    [
        ("GET", "/docs", "List"),
        ("GET", "/shelf/docs", "List"),
        ("POST", "/console/", "List"),
        ("GET", "/a/b", "Read"),
        ("GET", "/shelf/a/b", "Read"),
        ("GET", f"{LAMP}/Light", "Read"),
        ("GET", f"{LAMP}/x", "Read"),
        ("GET", f"{LAMP}/x?method=y", "Read"),
        ("GET", "/grpc.health.v2.Health/Check", "Read"),
    ],
)
def test_a_route_is_allowed_by_its_method_whatever_its_path_looks_like(
    server: sdk.testing.Server, verb: str, path: str, method: str
) -> None:
    body = {} if verb == "POST" else None
    assert ask(server, path, body, {"application": "shelf"}).status == 401
    answer = ask(server, path, body, {"application": "shelf", **KEY})
    assert (answer.status, answer.json.get("method")) == (200, method)


def test_a_path_that_looks_like_another_method_does_not_reach_the_replica(server: sdk.testing.Server) -> None:
    """Even where no route takes the verb: what Envoy and the replica may ever understand differently stays outside."""
    answer = ask(server, f"{LAMP}/x", None, {"application": "shelf"}, verb="DELETE")
    assert (answer.status, answer.headers["call-status"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize("kind", ["application/json", "application/proto", "application/grpc-web+proto"])
def test_a_method_is_not_allowed_by_the_route_that_its_path_matches(server: sdk.testing.Server, kind: str) -> None:
    body = {"application/json": b"{}", "application/proto": b""}.get(kind, bytes(5))
    headers = {"application": "shelf", "content-type": kind}
    assert ask(server, "/a/b", b"{}", {**headers, "content-type": "application/json"}).json["method"] == "Write"
    for method in ("Burn", "Read", "List"):
        answer = ask(server, f"{SHELF}/{method}", body, headers)
        assert answer.headers["call-status"] == "UNAUTHENTICATED", (method, answer)
    assert ask(server, f"{SHELF}/Write", body, headers).status == 200


def test_no_route_matches_a_path_of_its_own_services(server: sdk.testing.Server) -> None:
    """Envoy and the replica agree: what begins with a service is a method of it, or nothing."""
    for path in (f"{SHELF}/burn", f"{SHELF}/x"):
        answer = ask(server, path, {}, {"application": "shelf", **KEY})
        assert answer.headers["call-status"] in ("PERMISSION_DENIED", "UNIMPLEMENTED")


@pytest.mark.parametrize("name", [b"\xff", b"\xc3\xa9", b"%ff", b"x;y", b"x#y", b"x%0ay"])
def test_a_path_that_two_matchers_could_understand_differently(server: sdk.testing.Server, name: bytes) -> None:
    """Envoy's regular expressions match characters of UTF-8, and those of the replica bytes."""
    host, _, port = server.target.rpartition(":")
    request = b"GET " + f"{LAMP}/".encode() + name + b" HTTP/1.1\r\nhost: x\r\napplication: shelf\r\n\r\n"
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        connection.sendall(request)
        assert connection.recv(12) in (b"HTTP/1.1 401", b"HTTP/1.1 400")


def test_a_template_that_begins_with_a_service_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    from routed_sdk import SHELF as SERVICE

    rules = HttpRules(SERVICE.methods)
    assert [record.getMessage() for record in caplog.records] == [
        "/sdk.routed.Shelf/Burn: a route of google.api.http is left out: the path '/sdk.routed.Shelf/x' begins with a "
        "service, as those of methods do"
    ]
    assert rules.match("GET", "/a/b")[0] is not None
    assert rules.match("GET", f"{SHELF}/x") == (None, frozenset())
    assert {route.method for route in http_routes([SERVICE])} == {
        f"{SHELF}/{name}" for name in ("List", "Read", "Write")
    }

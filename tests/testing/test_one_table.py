"""Replicas and the proxy accept and refuse the same requests: one table, and each request of it to both."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from harness_pb2 import Text
from harness_pb2_grpc import GreeterStub

import sdk.testing
from sdk import GrpcOptions
from tests.support.deadlines import PACE_S
from tests.support.raw_client import RawClient, compressed, frame
from tests.testing.harness_apps import Greeter

LIMIT = 8 << 10
#: One method with one request message of each side, and a call that reaches no method.
SIDES = {
    "a replica": ("/harness.Greeter/SayHello", 0),
    "the proxy": ("/grpc.health.v1.Health/Check", 0),
    "the proxy, without a route": ("/none.None/None", 5),
}
EMPTY = frame(b"")
OK, INVALID, INTERNAL, EXHAUSTED, UNIMPLEMENTED = 0, 3, 13, 8, 12


@dataclass(frozen=True)
class Case:
    """A request, and its answer from a method.

    Attributes:
        expected: gRPC status, or HTTP status from 100 on.
        reads: Whether a method must read the request to give this answer; without a route nobody reads it.
        unrouted: HTTP status without a route, if it differs.
    """

    expected: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = EMPTY
    options: dict[str, Any] = field(default_factory=dict)
    reads: bool = False
    unrouted: int = 0


TABLE = {
    "a call": Case(OK),
    "without te": Case(OK, options={"te": None}),
    "content-type with +proto": Case(OK, options={"content_type": "application/grpc+proto"}),
    "content-type with a parameter": Case(OK, options={"content_type": "application/grpc; charset=utf-8"}),
    "content-type with +json": Case(415, options={"content_type": "application/grpc+json"}),
    "content-type of gRPC-Web": Case(200, options={"content_type": "application/grpc-web+proto"}),
    "content-type of JSON": Case(400, options={"content_type": "application/json"}, unrouted=404),
    "content-type of a form": Case(415, options={"content_type": "application/x-www-form-urlencoded"}, unrouted=404),
    "no content-type": Case(415, options={"content_type": None}, unrouted=404),
    "GET": Case(405, options={"method": "GET"}, unrouted=404),
    "HEAD": Case(405, options={"method": "HEAD"}, body=b"", unrouted=404),
    "OPTIONS": Case(405, options={"method": "OPTIONS"}, unrouted=404),
    "PUT": Case(405, options={"method": "PUT"}, unrouted=404),
    "DELETE": Case(405, options={"method": "DELETE"}, body=b"", unrouted=404),
    "a deadline": Case(OK, (("grpc-timeout", "30S"),)),
    "a malformed deadline": Case(INTERNAL, (("grpc-timeout", "soon"),), reads=True),
    "a deadline of nine digits": Case(INTERNAL, (("grpc-timeout", "123456789S"),), reads=True),
    "an empty deadline": Case(INTERNAL, (("grpc-timeout", ""),), reads=True),
    "an unknown encoding": Case(UNIMPLEMENTED, (("grpc-encoding", "snappy"),), reads=True),
    "an encoding that is accepted": Case(OK, (("grpc-encoding", "gzip"),), compressed(b"")),
    "compressed without an encoding": Case(INTERNAL, body=compressed(b""), reads=True),
    "an unknown flag": Case(INTERNAL, body=frame(b"", flag=2), reads=True),
    "an unknown accepted encoding": Case(OK, (("grpc-accept-encoding", "snappy,,\x7e"),)),
    "binary metadata": Case(OK, (("x-bin", "AAEC"), ("x-bin", "AA"), ("x-bin", "AA==,AQ"))),
    "binary metadata that is not base64": Case(OK, (("x-bin", "~*~"), ("grpc-trace-bin", "?"))),
    "metadata with a comma, a tab and bytes": Case(OK, (("x", "a,b"), ("y", "a\tb"), ("z", "é"))),
    "metadata above the limit": Case(EXHAUSTED, (("x", "x" * LIMIT),)),
    "one value above 64 KiB": Case(EXHAUSTED, (("x", "x" * 100_000),)),
    "no message": Case(UNIMPLEMENTED, body=b"", reads=True),
    "two messages": Case(UNIMPLEMENTED, body=EMPTY * 2, reads=True),
    "half a message": Case(INTERNAL, body=EMPTY[:3], reads=True),
    "a message of another type": Case(INTERNAL, body=frame(b"\xff\xff"), reads=True),
    "a message above the limit": Case(EXHAUSTED, body=frame(b"x" * (LIMIT + 1)), reads=True),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    options = GrpcOptions(max_metadata_bytes=LIMIT, max_receive_message_length=LIMIT)
    with sdk.testing.serve(Greeter.bind(), options=options) as server:
        yield server


@pytest.fixture
def raw(server: Any) -> Iterator[RawClient]:
    with RawClient(server.target) as client:
        yield client


def send(raw: RawClient, path: str, case: Case) -> Any:
    # A call without a route is one to an unknown application: with one application, every other call has a route.
    headers = [*case.headers, *([("application", "other")] if path.startswith("/none") else [])]
    stream = raw.open(path, headers, **case.options)
    stream.send(case.body, end=True)
    return stream.finish()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", TABLE)
def test_each_side_gives_the_same_answer(raw: RawClient, name: str, side: str) -> None:
    case, (path, good) = TABLE[name], SIDES[side]
    expected = case.expected
    if expected == OK or (case.reads and good):
        expected = good
    if good and side.endswith("without a route") and case.unrouted:
        expected = case.unrouted
    other = raw.open("/grpc.health.v1.Health/Watch")
    other.send(EMPTY, end=True)
    other.wait(lambda stream: stream.body)

    answer = send(raw, path, case)

    if expected >= 100:
        assert answer.first(b":status") == [str(expected).encode()]
        assert not answer.first(b"grpc-status")
        assert (answer.first(b"allow") == [b"POST"]) == (expected == 405)
        assert bool(answer.body) == (case.options.get("method") != "HEAD")
    else:
        assert answer.first(b":status") == [b"200"]
        assert answer.status[0] == expected, answer.status
        assert answer.first(b"content-type") == [b"application/grpc"]
    if expected == 200:  # gRPC-Web: the trailers are in the body
        assert answer.body.count(b"request_id: ") == 1
    else:
        assert len(answer.last(b"request_id")) == 1
    # Nobody else is hurt: not on this connection, not on the next one.
    assert not other.ended
    assert other.reset is None
    assert raw.call(SIDES["a replica"][0], Text()).status[0] == OK
    assert (
        raw.call(SIDES["the proxy"][0], health_pb2.HealthCheckRequest(), headers=[("grpc-timeout", "9S")]).status[0]
        == OK
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("headers", [(("request_id", "mine"),), (("request_id", "one"), ("request_id", "mine"))])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_the_answer_has_the_request_id_of_the_client(
    raw: RawClient, side: str, headers: tuple[tuple[str, str], ...], method: str
) -> None:
    answer = send(raw, SIDES[side][0], Case(OK, headers, options={"method": method}))
    assert answer.last(b"request_id") == [b"mine"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_http_probe_gets_an_answer(raw: RawClient, method: str) -> None:
    for path in ("/-/healthz", "/-/healthz?verbose", "/-/live", "/-/ready"):
        answer = raw.open(path, method=method, content_type=None, te=None, end=True).finish()
        assert answer.first(b":status") == [b"200"]
        assert bytes(answer.body) == (b"success" if method == "GET" else b"")
        assert answer.first(b"content-type") == [b"text/plain"]


def test_the_health_check_of_replicas_is_not_public(raw: RawClient) -> None:
    answer = raw.open("/sdk.replica/alive", method="GET", content_type=None, end=True).finish()
    assert answer.first(b":status") == [b"404"]


def test_reflection_answers_each_request_when_it_arrives(raw: RawClient) -> None:
    for version in ("v1", "v1alpha"):
        stream = raw.open(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        for count, request in enumerate(({"list_services": ""}, {"file_containing_symbol": "harness.Greeter"}), 1):
            stream.send(frame(reflection_pb2.ServerReflectionRequest(**request).SerializeToString()))
            stream.wait(lambda stream, count=count: len(stream.frames) == count)
        listed, file = (reflection_pb2.ServerReflectionResponse.FromString(data) for data in stream.messages)
        assert "harness.Greeter" in [service.name for service in listed.list_services_response.service]
        assert file.file_descriptor_response.file_descriptor_proto
        stream.send(b"", end=True)
        assert stream.finish().status == (OK, b"")


def test_the_healthy_calls_of_others_are_not_hurt_by_a_burst_of_bad_ones(server: Any) -> None:
    """Bad calls on many connections, on every Envoy worker, while another client checks the health with deadlines."""
    bad = [case for case in TABLE.values() if case.expected != OK]

    def attack() -> None:
        with RawClient(server.target) as client:
            for case in bad:
                for path, _ in SIDES.values():
                    send(client, path, case)

    attackers = [threading.Thread(target=attack) for _ in range(4)]
    with grpc.insecure_channel(server.target) as channel:
        stub, greeter = HealthStub(channel), GreeterStub(channel)
        for each in attackers:
            each.start()
        while any(each.is_alive() for each in attackers):
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
            greeter.SayHello(Text(text="you"), timeout=10)
            time.sleep(PACE_S)
        for each in attackers:
            each.join()

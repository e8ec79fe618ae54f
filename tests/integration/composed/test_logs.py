"""`sdk logs` on a cluster: one call on all replicas, and in the access log."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from user_defined_protos_pb2 import UserDefinedMessage as Message
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

from sdk._serve.cluster_logs import ClusterLogs, Found
from sdk._serve.node_logs import Query
from tests.support.loops import PATIENCE_S

APPLICATION = "typed"
CALL = "/userdefinedprotos.UserDefinedService/__call__"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def call(channel: grpc.Channel, request_id: str, name: str, application: str = APPLICATION) -> None:
    traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
    metadata = (("application", application), ("request_id", request_id), ("traceparent", traceparent))
    UserDefinedServiceStub(channel).__call__(Message(name=name), metadata=metadata, timeout=PATIENCE_S)


def read(logs: ClusterLogs, count: int) -> list[dict[str, Any]]:
    """Return the entries as soon as there are so many: Envoy writes the access log once a second."""
    entries: list[dict[str, Any]] = []
    until = time.monotonic() + PATIENCE_S
    while len(entries) < count:
        found: Found = logs.read()
        assert (found.nodes, found.unreachable) == (1, {})
        entries += found.entries
        assert time.monotonic() < until, entries
    return entries


def test_one_call_on_all_replicas_and_in_the_access_log(channel: grpc.Channel) -> None:
    call(channel, "another", "log hidden")
    call(channel, "call 1", "log shown")
    entries = read(ClusterLogs(Query(request_id="call 1")), 4)
    inner, outer = ([each for each in entries if each["deployment"] == name] for name in ("Inner", "Outer"))
    assert {each["request_id"] for each in entries} == {"call 1"}
    assert {each["trace_id"] for each in entries} == {TRACE}
    assert [each["message"] for each in inner if not each["message"].startswith("CALL")] == ["said log shown"]
    (said,) = (each for each in inner if each["message"] == "said log shown")
    assert (said["application"], said["method"], said["level"]) == (APPLICATION, "/probe.AsyncProbe/Unary", "INFO")
    assert any(each["message"].startswith(f"CALL {CALL} OK") for each in outer)
    (access,) = (each for each in entries if each["source"] == "access")
    assert (access["application"], access["deployment"], access["method"]) == (APPLICATION, "Outer", CALL)
    assert access["replica"] == outer[0]["replica"]
    assert access["call"]["status"] == "OK"


def test_a_call_that_fails_has_its_traceback(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError):
        call(channel, "broken", "raise")
    inner = (each for each in read(ClusterLogs(Query(request_id="broken")), 4) if each["deployment"] == "Inner")
    (failed,) = (each for each in inner if "Traceback" in each["message"])
    assert (failed["level"], failed["method"]) == ("ERROR", "/probe.AsyncProbe/Unary")
    assert failed["message"].splitlines()[-1].startswith("ValueError")


def test_a_call_that_reaches_no_replica_is_in_the_access_log_only(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError):
        call(channel, "lost", "x", application="none")
    (entry,) = read(ClusterLogs(Query(request_id="lost")), 1)
    assert (entry["source"], entry["application"], entry["call"]["status"]) == ("access", None, "NOT_FOUND")


def test_new_lines_of_one_application(channel: grpc.Channel) -> None:
    logs = ClusterLogs(Query(application=APPLICATION, deployment="Inner", tail=1))
    assert len(read(logs, 1)) == 1
    call(channel, "new", "log more")
    seen: list[str] = []
    while "said log more" not in seen:  # a line of an earlier call may come first
        seen += [each["message"] for each in read(logs, 1)]

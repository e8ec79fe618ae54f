"""Status codes for every end of a call, for async and sync handlers and all four cardinalities."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

import grpc
import pytest
from probe_pb2 import Ask

from tests.integration.clients import error_of
from tests.integration.prober import METHODS, Prober, outcome, wait_until

Code = grpc.StatusCode
LIMIT = 8192  # bytes that clients accept in trailers


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("act", "code", "details", "trailing"),
    [
        ("", Code.OK, r"", {}),
        ("raise", Code.INTERNAL, r"Traceback .*probes\.py.*\nValueError: note is wrong: ü", {}),
        ("set code and raise", Code.INTERNAL, r"Traceback .*\nValueError: raised all the same", {"kept": "yes"}),
        ("set OK and raise", Code.INTERNAL, r"Traceback .*\nValueError: raised all the same", {}),
        ("raise long", Code.INTERNAL, r"Traceback .*\n… cut …\n.*üüü\nthe end: ü %41 \t\.", {}),
        ("raise deep", Code.INTERNAL, r"Traceback .*probes\.py.*ValueError: from far below", {}),
        ("set code", Code.INVALID_ARGUMENT, r"not found, adding", {"num": "0"}),
        ("abort", Code.PERMISSION_DENIED, r"no", {"why": "because"}),
        ("rpc error", Code.NOT_FOUND, r"no user 7", {"user": "7"}),
        ("handle that raises", Code.INTERNAL, r"Traceback .*\nValueError: raised downstream", {}),
        ("handle that aborts", Code.FAILED_PRECONDITION, r"said downstream", {"why": "because"}),
        ("wrong type", Code.INTERNAL, r"\w+\.\w+ returned a probe_pb2\.Ask; the proto says probe\.Told", {}),
        ("none", Code.INTERNAL, r"\w+\.\w+ returned None; the proto says probe\.Told", {}),
    ],
)
@pytest.mark.parametrize(("number", "given"), [(0, "the call's"), (3, "")])
def test_how_a_handler_ends_its_call(
    prober: Prober,
    method: str,
    number: int,
    given: str,
    act: str,
    code: grpc.StatusCode,
    details: str,
    trailing: dict[str, str],
) -> None:
    metadata = (("request_id", given),) if given else ()
    ended = prober.ask(method, Ask(act=act, note="note", number=number), metadata=metadata)
    assert ended.code is code
    assert re.fullmatch(details, ended.details, re.DOTALL), ended.details
    assert "sdk/_wire" not in ended.details
    assert "\x1b" not in ended.details
    assert len(ended.details.encode()) < LIMIT
    request_id = ended.trailing.pop("request_id")
    assert request_id == given if given else re.fullmatch(r"[0-9a-f-]{36}", request_id)
    ended.trailing.pop("date", None)  # Envoy adds it to headers, and an error without messages may be Trailers-Only
    assert ended.trailing == trailing
    streams = method in ("Down", "Both")
    answered = act in ("", "set code") if not streams else act == ""
    assert [reply.number for reply in ended.messages] == ([*range(number)] if streams else []) + [number] * answered


def test_details_of_an_ok_status_are_on_the_wire(ingress: Any, prober: Prober, method: str) -> None:
    # Read from the socket, because grpcio hides them. Envoy also accepts HTTP/1.1 from clients.
    message = Ask(act="set details").SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    head = (
        f"POST /probe.{prober.service}/{method} HTTP/1.1\r\nhost: x\r\nte: trailers\r\napplication: probe\r\n"
        f"content-type: application/grpc\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", ingress.port), timeout=10) as peer:
        peer.sendall(head.encode() + body)
        received = b"".join(iter(lambda: peer.recv(1 << 16), b""))
    _, _, trailers = received.partition(b"\r\n0\r\n")
    assert b"grpc-status: 0\r\ngrpc-message: fine\r\n" in trailers
    assert b"\r\nrequest_id: " in trailers


def test_a_request_that_can_not_be_decoded(channel: grpc.Channel, prober: Prober, method: str) -> None:
    call = channel.stream_stream(f"/probe.{prober.service}/{method}")
    error = error_of(lambda: list(call(iter([b"\xff\xff"]), metadata=(("application", "probe"),))))
    assert error.code() is Code.INTERNAL
    assert re.match(r"the request is not a probe\.Ask: ", error.details() or "")


def test_a_client_deadline(prober: Prober, method: str) -> None:
    note = f"deadline {method}"
    ended = prober.expire(method, Ask(act="wait", note=note, number=2))
    assert ended.code is Code.DEADLINE_EXCEEDED
    prober.wait_for(note, "cancelled")


def test_a_downstream_deployment_over_its_limit(prober: Prober) -> None:
    calls: list[Any] = []

    def one_is_rejected() -> bool:
        # One runs and one waits at its handle; Ray Serve admits a few more to the queue if they arrive at once.
        calls.append(prober.begin("Unary", [Ask(act="handle of a full deployment", note="full")]))
        return any(call.done() for call in calls)

    wait_until(one_is_rejected)
    ended = outcome(next(call for call in calls if call.done()))
    assert ended.code is Code.RESOURCE_EXHAUSTED
    assert ended.details.startswith("Request dropped due to backpressure")
    assert ended.trailing["request_id"]
    for call in calls:
        call.cancel()


def test_a_replica_that_dies(prober: Prober) -> None:
    waiting = [prober.begin(method, [Ask(act="wait", note=f"dies {method}")]) for method in METHODS]
    amid = [prober.begin(method, [Ask(act="wait", note="dies", number=1)]) for method in ("Down", "Both")]
    for method in METHODS:
        prober.wait_for(f"dies {method}", "began")
    for call in amid:
        next(call)
    time.sleep(0.5)  # Envoy resets streams that are younger than some tenths of a second
    dead = prober.ask("Unary", Ask(act="die"))
    for ended in (dead, *map(outcome, waiting), *map(outcome, amid)):
        assert ended.code is Code.UNAVAILABLE
        assert ended.trailing["request_id"]

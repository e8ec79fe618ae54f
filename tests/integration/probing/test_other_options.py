"""Restarts of the ingress with other options, while the application keeps running."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import ray
from probe_pb2 import Ask

import sdk
from sdk._ingress.cluster import find_controller
from sdk._serve.api import stop_ingress
from tests.integration.prober import METHODS, SERVICES, Outcome, Prober, wait_until

Code = grpc.StatusCode
TIMEOUT_S = 0.4
MESSAGE_LIMIT = 1 << 20
ATTEMPTS = 100


@pytest.fixture(autouse=True, scope="module")
def other_ingress(ingress: Any, application: None) -> Iterator[None]:
    before = ray.get(find_controller().status.remote()).options
    other = sdk.GrpcOptions(
        port=ingress.port,
        request_timeout_s=TIMEOUT_S,
        error_details="message",
        max_receive_message_length=MESSAGE_LIMIT,
    )
    try:
        restart(other)
        yield
    finally:
        restart(before)


def restart(options: sdk.GrpcOptions) -> None:
    """Replace the ingress; its replicas find the new one at their next heartbeat."""
    stop_ingress()
    sdk.start(options)
    with grpc.insecure_channel(f"127.0.0.1:{options.port}") as channel:
        for service in SERVICES:
            prober = Prober(channel, service)
            wait_until(lambda prober=prober: prober.ask("Unary", Ask(), timeout=5).code is Code.OK, 60)


def ask_in_time(prober: Prober, method: str, ask: Ask) -> Outcome:
    """Make a call that ends before the request timeout: on a busy machine one of several does."""
    ends: list[Outcome] = []

    def is_in_time() -> bool:
        ends.append(prober.ask(method, ask))
        return ends[-1].code is not Code.DEADLINE_EXCEEDED

    wait_until(is_in_time)
    return ends[-1]


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("method", METHODS)
def test_request_timeout(prober: Prober, method: str, number: int) -> None:
    for attempt in range(ATTEMPTS):
        note = f"times out {method} {number} {attempt}"
        began = time.monotonic()
        ended = prober.ask(method, Ask(act="wait", note=note, number=number), timeout=30)
        assert (ended.code, ended.details) == (Code.DEADLINE_EXCEEDED, f"Request timed out after {TIMEOUT_S}s.")
        assert ended.trailing["request_id"]
        if "began" in prober.events(note):  # on a busy machine the time can be over before the handler waits
            break
    assert len(ended.messages) == (number if method in ("Down", "Both") else 0)
    assert prober.wait_for(note, "cancelled") - began >= TIMEOUT_S
    assert prober.wait_for(note, "cancelled") - prober.wait_for(note, "began") < 10, "the client would wait for 30 s"


def test_a_client_deadline_that_is_shorter_counts(prober: Prober) -> None:
    for attempt in range(ATTEMPTS):
        note = f"shorter {attempt}"
        ended = prober.ask("Unary", Ask(act="wait", note=note), timeout=TIMEOUT_S / 2)
        assert ended.code is Code.DEADLINE_EXCEEDED
        assert "timed out after" not in ended.details
        # On a busy machine the deadline can pass before the handler begins, and the handler can end late.
        if prober.events(note) and prober.wait_for(note, "cancelled") - prober.wait_for(note, "began") < TIMEOUT_S:
            break
    else:
        raise AssertionError("no handler was cancelled before the request timeout")


@pytest.mark.parametrize("method", METHODS)
def test_error_details_without_traceback(prober: Prober, method: str) -> None:
    ended = ask_in_time(prober, method, Ask(act="raise", note="note"))
    assert (ended.code, ended.details) == (Code.INTERNAL, "ValueError: note is wrong: ü")


@pytest.mark.parametrize("method", METHODS)
def test_a_message_over_the_limit(prober: Prober, method: str) -> None:
    ended = ask_in_time(prober, method, Ask(payload=bytes(MESSAGE_LIMIT)))
    assert ended.code is Code.RESOURCE_EXHAUSTED
    assert re.search(rf"longer than the limit of {MESSAGE_LIMIT} .*max_receive_message_length", ended.details)
    assert ended.trailing["request_id"]
    assert ask_in_time(prober, method, Ask(payload=bytes(MESSAGE_LIMIT - 100))).code is Code.OK

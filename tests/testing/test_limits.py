"""max_ongoing_requests and max_queued_requests: concurrent handlers, the queue, and calls rejected beyond it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from probe_pb2 import Ask

import sdk.testing
from tests.integration import probes
from tests.integration.prober import METHODS, PATIENCE_S, SERVICES, Prober, outcome, wait_until

RUNNING, QUEUED = 4, 3
LIMITS = {"max_ongoing_requests": RUNNING, "max_queued_requests": QUEUED}
REFUSAL = f"Request dropped due to backpressure (num_queued_requests={QUEUED}, max_queued_requests={QUEUED})."


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    sync = probes.Sync.options(**LIMITS).bind({})
    with (
        sdk.testing.serve({"probe": probes.Async.options(**LIMITS).bind({}, sync)}) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        yield channel


@pytest.fixture(params=SERVICES)
def prober(channel: grpc.Channel, request: pytest.FixtureRequest) -> Prober:
    return Prober(channel, request.param)


def join(prober: Prober, method: str) -> Any:
    return prober.begin(method, [Ask(act="join")])


def is_running(call: Any) -> bool:
    return any(key == "running" for key, _ in call.initial_metadata())


def is_rejected(call: Any) -> bool:
    """Return True if a call ends soon; one that waits in the queue does not."""
    try:
        return call.exception(timeout=1) is not None
    except grpc.FutureTimeoutError:
        return False


def test_calls_beyond_the_queue_are_rejected_at_once(prober: Prober) -> None:
    running = [join(prober, method) for method in METHODS]
    assert all(is_running(call) for call in running)
    # They arrive in any order: as many as the queue holds wait, the others are rejected.
    others = [join(prober, method) for method in METHODS * 3]
    wait_until(lambda: sum(call.done() for call in others) == len(others) - QUEUED)
    refused = [call for call in others if call.done()]
    waiting = [call for call in others if not call.done()]
    for call in refused:
        ended = outcome(call)
        assert (ended.code, ended.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, REFUSAL)
        assert ended.trailing["request_id"]
    assert outcome(join(prober, "Unary")).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not any(call.done() for call in waiting)

    # A waiting call that is cancelled frees its place in the queue; a running call that ends frees its slot.
    waiting.pop().cancel()
    newcomers = []

    def finds_a_place() -> bool:
        newcomers.append(join(prober, "Unary"))
        return not is_rejected(newcomers[-1])

    wait_until(finds_a_place)
    waiting.append(newcomers[-1])
    running.pop().cancel()
    wait_until(lambda: any(call.running() for call in waiting))
    for call in running:
        call.cancel()
    assert all(is_running(call) for call in waiting)
    for call in waiting:
        call.cancel()
    wait_until(lambda: prober.ask("Unary", Ask()).code is grpc.StatusCode.OK)
    assert prober.unary("peak").number == RUNNING


def test_many_cancels_never_admit_more_calls(prober: Prober) -> None:
    calls = []
    for _ in range(150):
        calls.append(join(prober, random.choice(METHODS)))
        if len(calls) > RUNNING:
            calls.pop(random.randrange(len(calls))).cancel()
    for call in calls:
        call.cancel()
    wait_until(lambda: prober.ask("Unary", Ask(), timeout=PATIENCE_S).code is grpc.StatusCode.OK)
    assert prober.unary("peak").number == RUNNING

"""Flow control: the slower side throttles the faster one, with bounded memory in the replica and in Envoy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from probe_pb2 import Ask

import sdk
from tests.integration import probes
from tests.integration.prober import PATIENCE_S, SERVICES, Prober, outcome, wait_until

MB = 1 << 20
#: Limit of one stream's memory: in the replica, in Envoy, and for the messages that the handler is ahead.
BOUND = 32 * MB
MESSAGE = 64 << 10
COUNT = 1000  # 62 MB, twice the limit


@pytest.fixture(params=SERVICES)
def prober(ingress: Any, request: pytest.FixtureRequest) -> Iterator[Prober]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(ingress.address, options=options) as channel:
        yield Prober(channel, request.param)


class Memory:
    """Memory growth of the replica and of Envoy since the start."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        (proxy,) = sdk.status().proxies
        self._envoy = proxy.envoy_pid
        self._peaks()
        self._replica_before, self._envoy_before = self._peaks()

    def grown(self) -> tuple[int, int]:
        """Return the peaks since the last call of this, minus the memory at the start."""
        replica, envoy = self._peaks()
        return replica - self._replica_before, envoy - self._envoy_before

    def _peaks(self) -> tuple[int, int]:
        return self._prober.unary("memory").number, probes.peak_memory(self._envoy)


def test_a_slow_client_throttles_a_fast_handler(prober: Prober) -> None:
    memory = Memory(prober)
    call = prober.begin("Down", [Ask(note="fast handler", number=COUNT, size=MESSAGE)])
    next(call)
    ahead = _when_quiet(lambda: len(prober.events("fast handler")))
    assert ahead * MESSAGE < BOUND
    assert max(memory.grown()) < BOUND
    assert [reply.number for reply in call] == [*range(1, COUNT), COUNT]
    assert max(memory.grown()) < BOUND


@pytest.mark.parametrize("method", ["Up", "Both"])
def test_a_slow_handler_throttles_a_fast_client(prober: Prober, method: str) -> None:
    memory = Memory(prober)
    sent = 0
    note = f"slow handler {method}"

    def asks() -> Iterator[Ask]:
        nonlocal sent
        for _ in range(COUNT):
            sent += 1
            yield Ask(act="read slowly", note=note, payload=bytes(MESSAGE))

    call = prober.begin(method, asks())
    prober.wait_for(note, "message")
    ahead = _when_quiet(lambda: sent)
    assert ahead * MESSAGE < BOUND
    assert max(memory.grown()) < BOUND
    prober.ask("Unary", Ask(act="go", note=note))
    assert outcome(call).code is grpc.StatusCode.OK
    assert prober.events(note).count("message") == COUNT
    assert max(memory.grown()) < BOUND


@pytest.mark.parametrize("method", ["Unary", "Down", "Up", "Both"])
def test_a_message_that_is_longer_than_the_memory_of_a_stream(prober: Prober, method: str) -> None:
    memory = Memory(prober)
    size = 40 * MB
    call = prober.begin(method, [Ask(act="echo", payload=bytes(size))])
    (reply,) = call
    assert len(reply.payload) == size
    assert call.code() is grpc.StatusCode.OK
    replica, envoy = memory.grown()
    assert envoy < BOUND
    assert replica < 6 * size


def test_other_calls_on_the_connection_continue(prober: Prober) -> None:
    memory = Memory(prober)
    go = threading.Event()

    def asks(note: str) -> Iterator[Ask]:
        while not go.is_set():
            yield Ask(act="read slowly", note=note, payload=bytes(MESSAGE))

    notes = [f"stands still {i}" for i in range(10)]
    calls = [prober.begin("Up", asks(note)) for note in notes]
    calls += [prober.begin("Down", [Ask(note=note, number=COUNT, size=MESSAGE)]) for note in notes]
    for note in notes:
        prober.wait_for(note, "message")
    _when_quiet(lambda: len(prober.events(notes[-1])))
    for _ in range(20):
        ended = prober.ask("Unary", Ask(act="echo", payload=bytes(MB)), timeout=PATIENCE_S)
        assert ended.code is grpc.StatusCode.OK
    assert max(memory.grown()) < 8 * len(calls) * MB
    go.set()
    for call in calls:
        call.cancel()


def _when_quiet(count: Any) -> int:
    """Return a count when it has stopped growing."""
    seen = [-1]

    def is_quiet() -> bool:
        threading.Event().wait(0.1)
        seen.append(count())
        return seen[-1] == seen[-2]

    wait_until(is_quiet)
    return seen[-1]

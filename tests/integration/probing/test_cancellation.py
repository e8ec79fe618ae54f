"""Clients that cancel or die: each handler is cancelled at once, with the calls that it awaits."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import grpc
import pytest
from probe_pb2 import Ask

from tests.integration.prober import METHODS, PATIENCE_S, SERVICES, Prober, outcome, wait_until

CANCELS = 25


@pytest.mark.parametrize("method", METHODS)
def test_every_cancel_reaches_its_handler(prober: Prober, method: str) -> None:
    delays = []
    for i in range(CANCELS):
        note = f"{method} {i}"
        call = prober.begin(method, [Ask(act="wait", note=note, number=1)])
        if method in ("Down", "Both"):
            next(call)  # in the middle of the stream
        prober.wait_for(note, "began")
        call.cancel()
        cancelled = time.monotonic()
        delays.append(prober.wait_for(note, "cancelled") - cancelled)
    assert len(delays) == CANCELS
    # It takes 2 ms; a busy machine may need longer now and then.
    assert statistics.median(delays) < 0.5, delays
    assert max(delays) < PATIENCE_S, delays


def test_cancels_while_messages_flow_and_the_client_still_sends(prober: Prober) -> None:
    for i in range(CANCELS):
        note = f"flow {i}"
        call = prober.begin("Down", [Ask(act="wait", note=note, number=1_000_000, size=1000)])
        next(call)
        call.cancel()
        stop = Event()
        sending = prober.begin("Up", _endless(Ask(act="read", note=f"up {i}"), stop))
        prober.wait_for(f"up {i}", "message")
        sending.cancel()
        stop.set()
        prober.wait_for(f"up {i}", "cancelled: True")
        # The first handler was cancelled in the middle of its messages: it never began to wait.
        wait_until(lambda note=note: _is_quiet(prober, note))
        assert "began" not in prober.events(note)


def test_a_sync_generator_is_closed_at_its_next_yield(channel: grpc.Channel) -> None:
    prober = Prober(channel, "SyncProbe")
    call = prober.begin("Down", [Ask(note="generator", number=1_000_000, size=1000)])
    next(call)
    call.cancel()
    prober.wait_for("generator", "closed")
    assert len(prober.events("generator")) < 10_000


def test_a_client_that_dies_never_looks_complete(ingress: Any, channel: grpc.Channel) -> None:
    streams = 8
    script = f"""
        import sys, threading, time
        import grpc
        from probe_pb2 import Ask
        from tests.integration.prober import Prober
        with grpc.insecure_channel("{ingress.address}") as channel:
            def asks(note):
                while True:
                    yield Ask(note=note, payload=bytes(100))
                    time.sleep(0.002)
            calls = [
                Prober(channel, service).begin(method, asks(f"dies {{method}} {{i}}"))
                for service in {SERVICES} for method in ("Up", "Both") for i in range({streams})
            ]
            print("sending", flush=True)
            threading.Event().wait()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"sending\n"
        notes = [f"dies {method} {i}" for method in ("Up", "Both") for i in range(streams)]
        probers = [Prober(channel, service) for service in SERVICES]
        for prober in probers:
            for note in notes:
                prober.wait_for(note, "message")
        client.send_signal(signal.SIGKILL)
    for prober in probers:
        for note in notes:
            prober.wait_for(note, "cancelled: True")
            assert "complete" not in prober.events(note)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize(
    ("service", "act"),
    [
        ("AsyncProbe", "handle"),
        ("AsyncProbe", "handle that streams"),
        ("AsyncProbe", "handle of a handle"),
        ("AsyncProbe", "handle in a task"),
        ("SyncProbe", "handle"),
        ("SyncProbe", "handle that streams"),
        ("SyncProbe", "handle of a handle"),
    ],
)
def test_calls_that_a_handler_awaits_are_cancelled(channel: grpc.Channel, service: str, act: str, how: str) -> None:
    prober = Prober(channel, service)
    ask = Ask(act=act, note=f"{service}, {act}, {how}")
    if how == "deadline":
        assert prober.expire("Unary", ask, "journal of down").code is grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        call = prober.begin("Unary", [ask])
        prober.wait_for(ask.note, "began", "journal of down")
        call.cancel()
        assert outcome(call).code is grpc.StatusCode.CANCELLED
    prober.wait_for(ask.note, "cancelled", "journal of down")


def test_a_cancelled_call_that_waits_for_a_full_deployment_never_runs(prober: Prober) -> None:
    notes = [f"{prober.service}, {name}" for name in ("runs", "waits", "runs later")]
    running = prober.begin("Unary", [Ask(act="handle of a full deployment", note=notes[0])])
    prober.wait_for(notes[0], "began", "journal of down")
    waiting = prober.ask("Unary", Ask(act="handle of a full deployment", note=notes[1]), timeout=0.3)
    assert waiting.code is grpc.StatusCode.DEADLINE_EXCEEDED
    running.cancel()
    prober.wait_for(notes[0], "cancelled", "journal of down")
    later = prober.begin("Unary", [Ask(act="handle of a full deployment", note=notes[2])])
    prober.wait_for(notes[2], "began", "journal of down")
    assert prober.journal(notes[1], "journal of down") == []
    later.cancel()
    prober.wait_for(notes[2], "cancelled", "journal of down")


def test_others_are_not_cancelled_with_a_call_of_the_same_request_id(prober: Prober) -> None:
    notes = [f"{prober.service}, same id {i}" for i in range(2)]
    same = (("request_id", "same"),)
    calls = [prober.begin("Unary", [Ask(act="handle", note=note)], metadata=same) for note in notes]
    for note in notes:
        prober.wait_for(note, "began", "journal of down")
    calls[0].cancel()
    prober.wait_for(notes[0], "cancelled", "journal of down")
    assert [event for event, _ in prober.journal(notes[1], "journal of down")] == ["began"]
    calls[1].cancel()
    prober.wait_for(notes[1], "cancelled", "journal of down")


def _endless(ask: Ask, stop: Event) -> Iterator[Ask]:
    while not stop.wait(0.001):
        yield ask


def _is_quiet(prober: Prober, note: str) -> bool:
    before = prober.events(note)
    time.sleep(0.02)
    return before == prober.events(note)

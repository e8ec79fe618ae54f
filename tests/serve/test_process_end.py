"""The end of a replica's process: after the answer of a call, and when its event loop has ended or is blocked."""

from __future__ import annotations

import asyncio
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sdk._serve.process_end import LoopWatch, end_after_answer
from tests.support import virtual_time
from tests.support.loops import PATIENCE_S


class Loop:
    """A loop that answers the watch when the test says so."""

    def __init__(self) -> None:
        self.running = True
        self.callbacks: list[Any] = []

    def is_running(self) -> bool:
        return self.running

    def call_soon_threadsafe(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def run(self) -> None:
        while self.callbacks:
            self.callbacks.pop(0)()


@pytest.fixture(autouse=True)
def propagates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytest see the log, though a replica in this process, of another test, has changed that."""
    monkeypatch.setattr(logging.getLogger("ray.serve"), "propagate", True)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def serve_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """The lines of Ray Serve's logger, whatever Ray, or another test, has made of it and of its parents before."""
    logger = logging.getLogger("ray.serve")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "disabled", False)
    caplog.set_level(logging.INFO, logger="ray.serve")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_a_loop_that_has_ended_ends_the_process_at_the_next_check(loop: Loop) -> None:
    reasons: list[str] = []
    watch = LoopWatch(loop, reasons.append)  # type: ignore[arg-type]  # the part of a loop that it uses
    watch.check()
    assert reasons == []
    loop.running = False
    watch.check()
    assert reasons == ["the event loop of the handlers has ended, by SystemExit or KeyboardInterrupt in a task"]


def test_a_blocked_loop_is_logged_once_with_its_place_and_again_when_it_runs(
    loop: Loop, serve_log: pytest.LogCaptureFixture
) -> None:
    reasons: list[str] = []
    watch = LoopWatch(loop, reasons.append)  # type: ignore[arg-type]  # the part of a loop that it uses
    for _ in range(2):
        watch.check()
    assert not serve_log.records
    for _ in range(10):
        watch.check()
    (record,) = serve_log.records
    assert record.levelno == logging.WARNING
    assert "the event loop is blocked for 3 s" in record.message
    assert "asyncio.to_thread" in record.message
    assert "test_a_blocked_loop_is_logged_once" in record.message  # this thread's stack: it made the watch
    loop.run()
    watch.check()
    assert serve_log.records[-1].message == "the event loop runs again, after 16 s"
    assert reasons == []


def test_a_loop_that_answers_is_not_logged(loop: Loop, serve_log: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch(loop)  # type: ignore[arg-type]  # the part of a loop that it uses
    for _ in range(10):
        watch.check()
        loop.run()
    assert not serve_log.records


@pytest.mark.parametrize(("unsent", "after_s"), [([0], 0.01), ([9, 9, 0], 0.03), ([9] * 1000, 1.0)])
def test_the_process_ends_when_the_kernel_has_the_answer_or_after_a_second(unsent: list[int], after_s: float) -> None:
    ended: list[tuple[str, float]] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        began, done = loop.time(), asyncio.Event()

        def end(reason: str) -> None:
            ended.append((reason, loop.time() - began))
            done.set()

        call: Any = SimpleNamespace(
            host=SimpleNamespace(loop=loop),
            transport=SimpleNamespace(get_write_buffer_size=lambda: unsent.pop(0)),
            path=b"/t.T/Exit",
            request_id="7",
        )
        end_after_answer(call, SystemExit(3), end)
        await done.wait()

    virtual_time.run(scenario())
    ((reason, seconds),) = ended
    assert reason == "the handler of /t.T/Exit raised SystemExit(3), request_id 7"
    assert seconds == pytest.approx(after_s, abs=0.011)


PROCESS = """
import asyncio, sys, threading
from sdk._serve.process_end import LoopWatch

async def main():
    LoopWatch(asyncio.get_running_loop()).start()
    asyncio.get_running_loop().call_soon({what})
    await asyncio.Event().wait()

threading.Thread(target=asyncio.run, args=[main()]).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("what", ["sys.exit", "lambda: (_ for _ in ()).throw(KeyboardInterrupt)"])
def test_a_process_whose_loop_has_ended_ends(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(what=what)], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 1
    assert "the event loop of the handlers has ended" in done.stderr


def test_the_end_of_the_loop_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdk._serve.process_end._CHECK_S", 3600.0)
    reasons: queue.Queue[str] = queue.Queue()

    async def main() -> None:
        LoopWatch(asyncio.get_running_loop(), reasons.put).start()

    threading.Thread(target=asyncio.run, args=[main()]).start()
    assert reasons.get(timeout=PATIENCE_S).startswith("the event loop of the handlers has ended")


def test_a_loop_that_ends_after_the_watch_was_stopped_ends_nothing() -> None:
    reasons: list[str] = []
    watches: list[threading.Thread] = []

    async def main() -> None:
        watch = LoopWatch(asyncio.get_running_loop(), reasons.append)
        watch.start()
        watches.extend(each for each in threading.enumerate() if each.name == "grpc-loop-watch")
        watch.stop()

    replica = threading.Thread(target=asyncio.run, args=[main()])
    replica.start()
    replica.join()
    for each in watches:
        each.join(PATIENCE_S)
    assert reasons == []

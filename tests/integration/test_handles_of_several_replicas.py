"""Calls through a handle to two replicas: the limits of each, models, a replica that dies, and redeployments."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from probe_pb2 import Ask
from probe_sdk import AsyncProbeHandle

import sdk
from sdk.errors import RpcError
from tests.integration import typed_handle_apps
from tests.support.deadlines import PACE_S, wait_until

NAME = "pair"
ONGOING, QUEUED = 4, 2


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


def application(notes: Path, replicas: int, version: int = 0) -> Any:
    inner = typed_handle_apps.Inner.options(
        num_replicas=replicas,
        max_ongoing_requests=ONGOING,
        max_queued_requests=QUEUED,
        expose=True,
        # Ray Serve need not replace the replica that dies: the next test redeploys. The ingress notices it at once.
        health_check_period_s=30,
    )
    return inner.bind(str(notes), version)


@pytest.fixture(autouse=True, scope="module")
def app(deploy: Any, notes: Path) -> None:
    deploy(application(notes, 2), NAME)


@pytest.fixture
def handle() -> AsyncProbeHandle:
    wait_until(lambda: len(routed()) == 2)
    return AsyncProbeHandle.of_application(NAME)


def routed() -> tuple[str, ...]:
    (found,) = (application for application in sdk.status().applications if application.name == NAME)
    return tuple(found.deployments[0].endpoints)


def owner(handle: AsyncProbeHandle, model: str) -> int:
    """Return the process id of the replica that answers the calls for a model."""
    (found,) = {handle.Unary(Ask(act="pid"), model_id=model, timeout=30).result().number for _ in range(5)}
    return found


def code_of(call: Future[Any]) -> str:
    error = call.exception()
    return error.code.name if isinstance(error, RpcError) else repr(error)


def test_no_replica_gets_more_calls_than_it_may_have(handle: AsyncProbeHandle, notes: Path) -> None:
    made, room = 30, 2 * (ONGOING + QUEUED)
    handles = [handle.Unary(Ask(act="wait", note=f"held {number}")) for number in range(made)]
    with ThreadPoolExecutor(made) as threads:
        calls = [threads.submit(call.result) for call in handles]
        wait_until(lambda: sum(call.done() for call in calls) == made - room)
        assert {code_of(call) for call in calls if call.done()} == {"RESOURCE_EXHAUSTED"}
        wait_until(lambda: len(list(notes.glob("held * began"))) == 2 * ONGOING)
        assert not list(notes.glob("held * ended"))
        for call in handles:
            call.cancel()
    assert Counter(map(code_of, calls)) == {"RESOURCE_EXHAUSTED": made - room, "CANCELLED": room}


def test_a_models_calls_go_to_one_replica(handle: AsyncProbeHandle) -> None:
    assert len({owner(handle, f"m{number}") for number in range(20)}) == 2


def test_a_replica_that_dies_ends_its_own_calls_only_and_gets_no_other(handle: AsyncProbeHandle) -> None:
    conversations = [Conversation(handle) for _ in range(6)]
    pids = {conversation.say() for conversation in conversations}
    assert len(pids) == 2
    victim = owner(handle, "m")
    os.kill(victim, signal.SIGKILL)
    # A zombie may have threads that have not ended, and with them its sockets.
    wait_until(lambda: not Path(f"/proc/{victim}").exists())
    others = pids - {victim}
    assert {handle.Unary(Ask(act="pid"), timeout=30).result().number for _ in range(50)} <= others, "at once"
    assert {owner(handle, "m")} == others
    for conversation in conversations:
        if conversation.pid == victim:
            with pytest.raises(RpcError, match="UNAVAILABLE: The replica died before its answer was complete"):
                conversation.say()
        else:
            assert conversation.say() == conversation.pid
        conversation.end()


class Conversation:
    """A conversation whose next message is sent when `say` is called."""

    def __init__(self, handle: AsyncProbeHandle) -> None:
        self._asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self._answers = handle.Both(self._requests())
        self.pid = 0

    def _requests(self) -> Iterator[Ask]:
        while (ask := self._asks.get()) is not None:
            yield ask

    def say(self) -> int:
        """Send a message, and return the process id of the replica that has answered it."""
        self._asks.put(Ask(act="pid"))
        self.pid = next(self._answers).number
        return self.pid

    def end(self) -> None:
        self._asks.put(None)
        self._answers.cancel()


def test_no_call_fails_while_the_called_deployment_is_redeployed(deploy: Any, notes: Path) -> None:
    handle, is_over = AsyncProbeHandle.of_application(NAME), threading.Event()

    def call_all_the_time() -> set[str]:
        seen = set()
        while not is_over.wait(PACE_S):
            seen.add(handle.Unary(Ask(act="version"), timeout=60).result().text)
            assert len(list(handle.Down(Ask(number=20), timeout=60))) == 20
            assert handle.Up([Ask(number=1)] * 20, timeout=60).result().number == 20
        return seen

    with ThreadPoolExecutor(QUEUED) as threads:  # all may wait while Ray Serve has stopped one and not started another
        callers = [threads.submit(call_all_the_time) for _ in range(QUEUED)]
        try:
            for version in (1, 2):  # the first has one replica fewer, which leaves before that of the second starts
                deploy(application(notes, 1, version), NAME)
                wait_until(lambda: len(routed()) == 1)
        finally:
            is_over.set()
        seen = set[str]().union(*(caller.result() for caller in callers))
    assert {"0", "1"} <= seen
    assert handle.Unary(Ask(act="version"), timeout=30).result().text == "2"

"""The calls of the cluster for the page of the console, without sockets."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from sdk._figures.figures import PROCESSED, REQUESTS, Reading, Series
from sdk._figures.recent import STALE_S
from sdk._ingress.builtin import live_calls
from sdk._ingress.builtin.live_calls import LiveCalls
from sdk.errors import ClusterError


def series(name: str, **labels: str) -> Series:
    return "node", name, frozenset({"application": "a", **labels}.items())


OK = series(REQUESTS, method="/a.B/C", status_code="OK")


class Rig:
    """A clock, and nodes whose metrics take a while to read."""

    def __init__(self) -> None:
        self.now, self.takes, self.reads = 0.0, 0.0, 0
        self.values: dict[Series, float] = {OK: 0.0}
        self.error: Exception | None = None
        self.calls = LiveCalls(self.read, lambda: self.now)

    def read(self) -> Reading:
        self.reads += 1
        self.now += self.takes
        if self.error is not None:
            raise self.error
        return Reading(self.now, dict(self.values), frozenset({"node"}))

    async def ask(self, at: float) -> tuple[dict[str, Any] | None, str]:
        """Return the answer at this time, and wait until a reading that it has started is over."""
        self.now = at
        found = self.calls.latest()
        if self.calls._reading is not None:
            await self.calls._reading
        return found


async def test_nothing_is_read_before_a_page_asks_and_no_answer_waits() -> None:
    rig = Rig()
    assert rig.reads == 0
    assert await rig.ask(0) == (None, "")
    rig.values = {OK: 50.0}
    assert await rig.ask(10) == (None, "")
    shown, problem = await rig.ask(10.1)
    assert shown is not None
    assert (shown["seconds"], shown["methods"][0]["calls_per_s"], problem) == (10, 5, "")
    Struct().update(shown)  # the form in which the page gets it
    assert rig.reads == 2


async def test_many_pages_cost_one_reading() -> None:
    rig = Rig()
    for at in (0, 0.1, 0.2, 4.9):
        await rig.ask(at)
    assert rig.reads == 1
    await rig.ask(5)
    assert rig.reads == 2


async def test_a_reading_that_takes_long_is_made_rarely() -> None:
    rig = Rig()
    rig.takes = 3
    await rig.ask(0)
    await rig.ask(29.9)
    assert rig.reads == 1
    await rig.ask(30)
    assert rig.reads == 2


async def test_figures_of_a_page_that_was_closed_are_not_shown_again() -> None:
    rig = Rig()
    for at in (0, 10):
        await rig.ask(at)
    assert (await rig.ask(11))[0] is not None
    assert (await rig.ask(11 + STALE_S))[0] is None


async def test_the_reason_why_there_are_no_figures() -> None:
    rig = Rig()
    rig.error = ClusterError("no node exports metrics")
    await rig.ask(0)
    rig.error = RuntimeError("the head is gone")
    assert await rig.ask(5) == (None, "no node exports metrics")
    rig.error = None
    assert await rig.ask(10) == (None, "The calls can't be read (RuntimeError); trying again.")
    assert await rig.ask(15) == (None, "")


async def test_the_busiest_replicas_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_calls, "_REPLICAS", 2)
    rig = Rig()
    await rig.ask(0)
    calls = {"a": 20.0, "b": 5.0, "c": 10.0}
    rig.values = {series(PROCESSED, deployment="D", replica=name): number for name, number in calls.items()}
    await rig.ask(10)
    shown, _ = await rig.ask(11)
    assert shown is not None
    assert ([each["replica"] for each in shown["replicas"]], shown["left_out"]) == (["a", "c"], 1)

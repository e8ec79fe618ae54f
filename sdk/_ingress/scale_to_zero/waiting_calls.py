"""The calls that wait at one proxy for a replica of a deployment that is scaled to zero. Plain state, no IO.

Each waits until there is a replica, its time is over, the deployment turns out to be unable to start, or its client
goes; then it has left. How many wait is told to whoever starts replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc

#: A deployment: the names of its application and its own.
DeploymentKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a call that waited: it goes on (OK), or ends with this status."""

    code: grpc.StatusCode
    details: str = ""


ALLOW = Decision(grpc.StatusCode.OK)


class _Timer(Protocol):
    def cancel(self) -> object: ...


class WaitingCalls:
    """The calls that wait, by deployment.

    Args:
        call_later: Calls a function after so many seconds, as an event loop's does; the running loop's by default.
        on_change: Called when a deployment gets its first waiting call, or loses its last one.

    Example:
        >>> async def example():
        ...     room = WaitingCalls()
        ...     call = room.enter(("app", "Greeter"), limit=100, timeout_s=5.0)
        ...     room.answer(("app", "Greeter"), ALLOW)
        ...     return (await call).code.name
        >>> asyncio.run(example())
        'OK'
    """

    def __init__(
        self,
        *,
        call_later: Callable[..., _Timer] | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._call_later = call_later
        self._on_change = on_change
        self._waiting: dict[DeploymentKey, dict[asyncio.Future[Decision], _Timer | None]] = {}

    @property
    def counts(self) -> dict[DeploymentKey, int]:
        """How many calls wait for each deployment; one that none waits for is not there."""
        return {key: len(calls) for key, calls in self._waiting.items()}

    def enter(
        self, key: DeploymentKey, *, limit: int, timeout_s: float | None = None, late: str = "Deadline exceeded."
    ) -> asyncio.Future[Decision]:
        """Let a call wait.

        Args:
            key: The deployment it waits for.
            limit: Most calls that may wait for that deployment; with so many the answer is RESOURCE_EXHAUSTED at once.
            timeout_s: Seconds after which it ends DEADLINE_EXCEEDED; None for as long as it takes.
            late: Status message of that.

        Returns:
            What becomes of the call; cancel it when the client has gone.
        """
        loop = asyncio.get_running_loop()
        call: asyncio.Future[Decision] = loop.create_future()
        number = len(self._waiting.get(key, ()))
        if number >= limit:
            details = (
                f"Request dropped due to backpressure: {number} requests wait for the first replica of application "
                f"{key[0]!r}, the most that may."
            )
            call.set_result(Decision(grpc.StatusCode.RESOURCE_EXHAUSTED, details))
            return call
        timer = None
        if timeout_s is not None:
            call_later = self._call_later or loop.call_later
            timer = call_later(timeout_s, self._end, key, call, Decision(grpc.StatusCode.DEADLINE_EXCEEDED, late))
        self._waiting.setdefault(key, {})[call] = timer
        call.add_done_callback(lambda call: self._leave(key, call))
        if number == 0:
            self._on_change()
        return call

    def answer(self, key: DeploymentKey, decision: Decision) -> None:
        """Give every call that waits for a deployment the same decision."""
        for call in list(self._waiting.get(key, ())):
            self._end(key, call, decision)

    def _end(self, key: DeploymentKey, call: asyncio.Future[Decision], decision: Decision) -> None:
        if not call.done():
            call.set_result(decision)
        self._leave(key, call)

    def _leave(self, key: DeploymentKey, call: asyncio.Future[Decision]) -> None:
        calls = self._waiting.get(key)
        if calls is None or call not in calls:
            return
        timer = calls.pop(call)
        if timer is not None:
            timer.cancel()
        if not calls:
            del self._waiting[key]
            self._on_change()

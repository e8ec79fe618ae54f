"""Calls that wait at one proxy for a replica of a deployment that has none. Plain state, no IO.

A call waits until there is a replica, its deadline is over, the deployment can't start, or its client cancels. The
number of waiting calls is reported to the activator, which starts replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import grpc

if TYPE_CHECKING:
    from sdk._channel.feed import DeploymentKey


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision about a waiting call: it proceeds (OK), or ends with this status.

    Attributes:
        code: The status.
        details: Its message.
        reason: The reason in the metric of refused calls.
    """

    code: grpc.StatusCode
    details: str = ""
    reason: str = ""


#: Reason and status of a call that ended while it waited.
Refusal = tuple[str, grpc.StatusCode]

ALLOW = Decision(grpc.StatusCode.OK)


class _Timer(Protocol):
    def cancel(self) -> object: ...


class WaitingCalls:
    """The waiting calls, by deployment.

    Args:
        call_later: Calls a function after a delay in seconds; by default ``call_later`` of the running event loop.
        on_change: Called when a deployment gets its first waiting call, and when its last one has left.

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
        """Number of waiting calls by deployment, without those at zero."""
        return {key: len(calls) for key, calls in self._waiting.items()}

    def enter(
        self, key: DeploymentKey, *, limit: int, timeout_s: float | None = None, late: str = "Deadline exceeded."
    ) -> asyncio.Future[Decision]:
        """Let a call wait.

        Args:
            key: The deployment that it waits for.
            limit: Maximum number of calls that wait for the deployment. More calls end RESOURCE_EXHAUSTED at once.
            timeout_s: Seconds after which the call ends DEADLINE_EXCEEDED; None for no limit.
            late: Status message of DEADLINE_EXCEEDED.

        Returns:
            Future of the decision. Cancel it if the client cancels the call.
        """
        loop = asyncio.get_running_loop()
        call: asyncio.Future[Decision] = loop.create_future()
        number = len(self._waiting.get(key, ()))
        if number >= limit:
            details = (
                f"Request dropped due to backpressure: {number} requests already wait for a replica of "
                f"application {key[0]!r}, which is the limit."
            )
            call.set_result(Decision(grpc.StatusCode.RESOURCE_EXHAUSTED, details, "overflow"))
            return call
        timer = None
        if timeout_s is not None:
            call_later = self._call_later or loop.call_later
            decision = Decision(grpc.StatusCode.DEADLINE_EXCEEDED, late, "timeout")
            timer = call_later(timeout_s, self._end, key, call, decision)
        self._waiting.setdefault(key, {})[call] = timer
        call.add_done_callback(lambda call: self._leave(key, call))
        if number == 0:
            self._on_change()
        return call

    def answer(self, key: DeploymentKey, decision: Decision) -> None:
        """Apply a decision to every call that waits for a deployment."""
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

"""Verdict on an event: a pure function of the calls that were made during it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise

from tests.chaos.constant_load import LONG, UNARY, CallRecord

#: Seconds after a fault in which new calls may still fail, on an idle machine.
RECOVERY_S = 2.0
# A call that begins this many seconds after a fault was not in flight when it happened, on an idle machine.
_IN_FLIGHT_S = 0.5
# A stream that began this many seconds before a fault can end with a status, on an idle machine.
_YOUNG_S = 0.3
# INTERNAL by grpc.aio itself, of a stream that was writing when its connection was lost.
_CONNECTION_LOST = "Internal error from Core"


class Promise(Enum):
    """The promise for calls during an event."""

    NOTHING_FAILS = "nothing fails"
    ONLY_IN_FLIGHT = "only calls in flight on what died fail"
    SOON_BACK = "calls begun 2 s later succeed"


@dataclass(frozen=True, slots=True)
class Window:
    """Time frame of an event, in monotonic seconds.

    Attributes:
        hit: Time of the change or fault.
        dead: Time at which the killed process had exited; ``hit`` without one.
        converged: Time at which the ingress was healthy again, with every replica.
        end: End of the evaluated calls.
        slowness: Slowdown of the machine during the event; 1 on an idle machine.
    """

    hit: float
    dead: float
    converged: float
    end: float
    slowness: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    event: str
    promise: Promise
    calls: int
    failed: int
    codes: dict[str, int]
    gap_ms: int
    recovery_ms: int
    converged_ms: int
    slowness: float
    problems: tuple[str, ...] = field(default=())

    @property
    def is_kept(self) -> bool:
        """True if the promise was kept."""
        return not self.problems

    def with_problem(self, problem: str) -> Row:
        """Return the row with one more problem."""
        return replace(self, problems=(*self.problems, problem))


def judge(event: str, promise: Promise, window: Window, calls: Iterable[CallRecord]) -> Row:
    """Return the row of an event.

    A call belongs to the event during which it ended, or to the one in which it was cut.

    Args:
        event: Its name.
        promise: Its promise.
        window: Its time frame.
        calls: All calls.
    """
    mine = [call for call in calls if window.hit <= call.ended <= window.end]
    failed = [call for call in mine if call.code != "OK"]
    late = max((call.began for call in failed), default=window.hit)
    judged = (call for call in mine if call.code != "OK" or call.kind == LONG)
    problems = Counter(problem for call in judged for problem in _problems(call, promise, window))
    gap = _longest_gap(mine, window)
    if promise is not Promise.NOTHING_FAILS and gap > RECOVERY_S * window.slowness:
        problems[f"no call succeeded for {gap:.1f} s"] += 1
    return Row(
        event,
        promise,
        len(mine),
        len(failed),
        dict(Counter(f"{call.kind}: {call.code}" for call in failed)),
        round(gap * 1000),
        max(0, round((late - window.hit) * 1000)),
        round((window.converged - window.hit) * 1000),
        window.slowness,
        tuple(f"{count} times: {problem}" for problem, count in problems.items()),
    )


def _problems(call: CallRecord, promise: Promise, window: Window) -> Iterable[str]:
    details = f" ({call.details[:220]})" if call.details else ""
    what = f"{call.kind} {call.code} after {call.ended - call.began:.1f} s and {call.messages} messages{details}"
    if call.kind == LONG:
        if call.code != "UNAVAILABLE":
            yield f"a stream past the grace must end UNAVAILABLE: {what}"
        return
    if promise is Promise.NOTHING_FAILS:
        yield what
        return
    # Of a response that has only just begun, Envoy can only reset the rest.
    is_young = call.messages > 0 and call.began > window.dead - _YOUNG_S * window.slowness
    is_internal = call.code == "INTERNAL" and (is_young or call.details == _CONNECTION_LOST)
    if call.code != "UNAVAILABLE" and not is_internal:
        yield f"not retryable: {what}"
    allowed = (_IN_FLIGHT_S if promise is Promise.ONLY_IN_FLIGHT else RECOVERY_S) * window.slowness
    if call.began > window.dead + allowed:
        yield f"begun more than {allowed:g} s later: {what}"


def _longest_gap(calls: Iterable[CallRecord], window: Window) -> float:
    """Return the longest time without a successful unary call."""
    times = sorted(call.ended for call in calls if call.kind == UNARY and call.code == "OK")
    return max((after - before for before, after in pairwise([window.hit, *times, window.end])), default=0.0)


def render(rows: Iterable[Row]) -> str:
    """Return the table as text."""
    lines = [
        f"{'event':<44} {'calls':>6} {'failed':>6} {'gap ms':>7} {'recovery ms':>11} {'converged ms':>12} "
        f"{'slow':>5}  kept  codes"
    ]
    for row in rows:
        codes = ", ".join(f"{count} {code}" for code, count in sorted(row.codes.items())) or "-"
        lines.append(
            f"{row.event:<44} {row.calls:>6} {row.failed:>6} {row.gap_ms:>7} {row.recovery_ms:>11} "
            f"{row.converged_ms:>12} {row.slowness:>4g}x  {'yes' if row.is_kept else 'NO':<4}  {codes}"
        )
        lines += [f"    {problem}" for problem in row.problems]
    return "\n".join(lines)

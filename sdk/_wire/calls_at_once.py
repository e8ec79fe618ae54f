"""Limits of calls at once: of all clients of a replica, or of each one. Without such a limit no call runs any of this.

A call is counted from its head on, before its body has arrived, and until its handler has ended: a client that sends
slowly, or cancels what can't be interrupted, has no more calls than others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc

from sdk._status import STATUS_DETAILS, retry_later
from sdk._wire.call import Call
from sdk._wire.peer import auth_context_of
from sdk.context import API_KEY_NAME, PEM_CERTIFICATE, TOKEN_ISSUER, TOKEN_SUBJECT
from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk._wire.route import Route
    from sdk.access import Limit

# What a client is known by, as for limits of calls a second (sdk/_xds/access_filters.py).
_IDENTITIES = ((TOKEN_ISSUER, TOKEN_SUBJECT), (API_KEY_NAME,), (PEM_CERTIFICATE,))
# Envoy adds it to each request, and removes none; calls of other deployments have none. They are not counted: a client
# may make one call, and its handler ten.
_OF_CLIENTS = b"x-request-id"

#: What ``Call.identity`` returns.
Identity = tuple[bytes | None, bytes | None, bytes | None, bytes | None]
#: A client, and the count that has its open calls.
Place = tuple[Counter[tuple[bytes, ...]], tuple[bytes, ...]]


class OpenCalls:
    """Counts the open calls of one wire server, and refuses those above a limit.

    Args:
        limits: The limits of its application.
        before: The counts of the limits until now: calls that are open stay counted.

    Example:
        >>> from sdk.access import Limit
        >>> OpenCalls([Limit(calls_at_once=2)]).enter("greeter.Greeter/SayHello", (None, None, None, None))[0][1]
        ()
    """

    def __init__(self, limits: Iterable[Limit], before: OpenCalls | None = None) -> None:
        earlier = before._counts if before is not None else {}
        self._counts: dict[Limit, Counter[tuple[bytes, ...]]] = {
            limit: earlier.get(limit, Counter()) for limit in limits
        }

    def new_call(self, make: Callable[..., Call] | None) -> Callable[..., Call]:
        """Return the maker of counted calls.

        Args:
            make: Makes calls of any kind; None for their constructor.
        """

        def make_counted(*parts: Any, kind: Any = Call, **options: Any) -> Call:
            counted = _counted(kind)
            call = counted(*parts, **options) if make is None else make(*parts, kind=counted, **options)
            call.open_calls = self  # type: ignore[attr-defined]  # it is a CountedCall
            return call

        return make_counted

    def enter(self, method: str, identity: Identity) -> list[Place]:
        """Count a call, and return the places that it has taken, for :meth:`leave`.

        Args:
            method: Its method, ``pkg.Service/Method``.
            identity: The client, in the headers that Envoy sets.

        Raises:
            RpcError: It exceeds a limit. Nothing is counted.
        """
        places: list[Place] = []
        for limit, counts in self._counts.items():
            if limit.methods and not {method, method.partition("/")[0]} & {*limit.methods}:
                continue
            for client in _clients(identity) if limit.per_identity else ((),):
                if counts[client] >= limit.calls_at_once:  # type: ignore[operator]  # these limits have it
                    raise _refusal(limit)
                places.append((counts, client))
        for counts, client in places:
            counts[client] += 1
        return places

    @staticmethod
    def leave(places: Iterable[Place]) -> None:
        """Count a call no longer.

        Args:
            places: What :meth:`enter` returned.
        """
        for counts, client in places:
            counts[client] -= 1
            if not counts[client]:
                del counts[client]  # clients come and go


def _clients(identity: Identity) -> Iterator[tuple[bytes, ...]]:
    known = auth_context_of(*identity)
    for names in _IDENTITIES:
        if all(name in known for name in names):
            yield tuple(known[name][0] for name in names)


def _refusal(limit: Limit) -> RpcError:
    whose = "this client" if limit.per_identity else "all clients"
    what = f" of {', '.join(limit.methods)}" if limit.methods else ""
    text = (
        f"The limit of calls{what} at once from {whose} is {limit.calls_at_once} on each replica (`access` of the "
        "ingress). Try again when one of them has ended."
    )
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return RpcError(
        code,
        text,
        trailing_metadata=(
            (STATUS_DETAILS, retry_later(code.value[0], text)),
            ("x-ratelimit-limit", str(limit.calls_at_once)),
            ("x-ratelimit-remaining", "0"),
        ),
    )


@cache
def _counted(kind: Any) -> type[Call]:
    """Return the class of calls of this kind that are counted."""
    return CountedCall if kind is Call else type(f"Counted{kind.__name__}", (CountedCall, kind), {})


class CountedCall(Call):
    """A call that a limit may count.

    Without slots, so that it can be joined with the call of another protocol.

    Attributes:
        open_calls: The counts.
    """

    open_calls: OpenCalls
    _places: list[Place] | None = None

    def headers_complete(self) -> None:
        if self.route is not None and _OF_CLIENTS in self._fields:
            try:
                self._places = self.open_calls.enter(self.route.method.path[1:], self.identity)
            except RpcError as refusal:
                self.host.count_rejected(self.route.method.path, refusal.code.value[0], "limit")
                self._finish_with_error(refusal)
                return
        super().headers_complete()

    async def _run(self, route: Route) -> None:
        try:
            await super()._run(route)
        finally:
            self._leave()

    def end_thread(self) -> None:
        super().end_thread()
        self._leave()

    def _finish(self) -> None:
        super()._finish()
        self._leave()

    def _leave(self) -> None:
        if self._places is not None and self._finished and not self.running:
            self.open_calls.leave(self._places)
            self._places = None

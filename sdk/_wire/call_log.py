"""Calls that are logged when they end. The class of the others does nothing for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sdk._wire.call import Call

if TYPE_CHECKING:
    from sdk._wire.host import Host
    from sdk._wire.route import Route
    from sdk._wire.server import WireServer


class CallWithLog(Call):
    """A call that reports its end to ``host.on_end``: its status code, and the seconds since its first byte."""

    __slots__ = ("_began", "_status")

    def __init__(
        self,
        host: Host,
        transport: Any,
        route: Route | None,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        on_finished: Callable[[Call], None],
    ) -> None:
        super().__init__(host, transport, route, path, headers, on_finished)
        self._began = time.perf_counter()
        self._status = 0  # a response that is sent with its trailers is OK

    def _trailers(self, code: int, details: str) -> bytes:
        self._status = code
        return super()._trailers(code, details)

    def _finish(self) -> None:
        super()._finish()  # first: the next call on the connection need not wait
        status = self._status if self._cancel_reason is None else self._cancel_reason[0]
        self.host.on_end(self, status, time.perf_counter() - self._began)


def log_calls(server: WireServer, log: Callable[[Call, int, float], None] | None) -> None:
    """Report the calls that begin from now on when they end.

    Args:
        server: The server.
        log: Receives each call with its status code and its seconds, on the loop; None to report none.
    """
    if log is None:
        server.host.call_class = Call
    else:
        server.host.on_end, server.host.call_class = log, CallWithLog

"""The calls to other deployments that a handler has made: they end with its own."""

from __future__ import annotations

from typing import Any


class InnerCalls:
    """The calls of one handler's call.

    Attributes:
        calls: Those that have not ended.
        lines: Header lines that each of them inherits, once the first has needed them.
    """

    __slots__ = ("calls", "lines")

    def __init__(self) -> None:
        self.calls: set[Any] = set()
        self.lines = b""

    def cancel(self) -> None:
        """Cancel those that have not ended."""
        for call in list(self.calls):
            call.cancel()

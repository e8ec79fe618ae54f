"""What a restarted controller must hear before it publishes: what the proxies hold. Plain state."""

from __future__ import annotations

import time
from collections.abc import Callable, Set


class Recovery:
    """Whether a proxy of an earlier controller may still hold more than this one knows.

    Nothing may be published before: an Envoy would drop replicas that live. It is over when every proxy that was there
    before has said what it holds, or when each replica that lives has had the time to register by itself.

    Args:
        timeout_s: Seconds in which every replica that lives registers.
        clock: Monotonic seconds.

    Example:
        >>> recovery = Recovery(7.0, clock=lambda: 0.0)
        >>> recovery.expect({"node"})
        >>> recovery.is_over
        False
        >>> recovery.hear("node", holds_table=True)
        >>> recovery.is_over
        True
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + timeout_s
        self._silent: set[str] | None = None
        self._heard: set[str] = set()
        self._has_table = False
        self._is_over = False

    def expect(self, nodes: Set[str]) -> None:
        """Note the nodes whose proxy was there before this controller; before this nothing is over."""
        self._silent = set(nodes) - self._heard
        if not nodes:
            self._is_over = True  # the first controller: there is nothing to learn
        self._conclude()

    @property
    def is_expecting(self) -> bool:
        """Whether it knows already whom to wait for."""
        return self._silent is not None

    def hear(self, node_id: str, *, holds_table: bool) -> None:
        """Note what the proxy of a node says."""
        self._heard.add(node_id)
        self._has_table = self._has_table or holds_table
        if self._silent is not None:
            self._silent.discard(node_id)
        self._conclude()

    @property
    def is_over(self) -> bool:
        """Whether the registry holds all that is served."""
        self._conclude()
        return self._is_over

    def _conclude(self) -> None:
        if not self._is_over and self._silent is not None:
            # Proxies that hold nothing have lost it together with the earlier controller: only replicas know.
            self._is_over = (not self._silent and self._has_table) or self._clock() >= self._until

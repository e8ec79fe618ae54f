"""Recovery of a restarted controller: wait for the proxies' routing tables before the first publish. Plain state."""

from __future__ import annotations

import time
from collections.abc import Callable, Set


class Recovery:
    """Decides when a restarted controller knows all replicas that proxies of an earlier controller route to.

    If it published earlier, Envoys would drop running replicas. Recovery is over when every proxy of the earlier
    controller has reported its routing table, or when every running replica has had time to register.

    Args:
        timeout_s: Seconds in which every running replica registers.
        clock: Monotonic seconds.

    Example:
        >>> recovery = Recovery(7.0, clock=lambda: 0.0)
        >>> recovery.expect({"node"})
        >>> recovery.is_over
        False
        >>> recovery.record_report("node", holds_table=True)
        >>> recovery.is_over
        True
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + timeout_s
        self._silent: set[str] | None = None
        self._reported: set[str] = set()
        self._has_table = False
        self._is_over = False

    def expect(self, nodes: Set[str]) -> None:
        """Set the nodes whose proxy is older than this controller. Recovery is not over before this call."""
        self._silent = set(nodes) - self._reported
        if not nodes:
            self._is_over = True  # the first controller: nothing to recover
        self._conclude()

    @property
    def is_expecting(self) -> bool:
        """True after :meth:`expect`."""
        return self._silent is not None

    def record_report(self, node_id: str, *, holds_table: bool) -> None:
        """Record a report of the proxy of a node."""
        self._reported.add(node_id)
        self._has_table = self._has_table or holds_table
        if self._silent is not None:
            self._silent.discard(node_id)
        self._conclude()

    def wants_table(self, node_id: str) -> bool:
        """Return True if the proxy of a node has to send its routing table. It is the cluster's largest message."""
        return not self.is_over and node_id not in self._reported

    @property
    def is_over(self) -> bool:
        """True if the registry is complete."""
        self._conclude()
        return self._is_over

    def _conclude(self) -> None:
        if not self._is_over and self._silent is not None:
            # If all proxies have lost their tables together with the earlier controller, only replicas know.
            self._is_over = (not self._silent and self._has_table) or self._clock() >= self._until

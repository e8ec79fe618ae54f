"""The tables that the controller has published, as each proxy gets them. Plain state, without IO."""

from __future__ import annotations

import heapq
import itertools
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from sdk._ingress.table_delta import TableDelta, apply, difference

if TYPE_CHECKING:
    import asyncio

    from sdk._xds.snapshot import Snapshot

# Published tables that are kept. They share nearly everything. A proxy that is further behind gets the whole table.
_KEPT = 256


class Publication:
    """The newest published table, and its differences from those before.

    What a proxy gets is pickled once for all proxies that hold the same version.

    Args:
        kept: Number of tables that are kept.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._tables: OrderedDict[int, Snapshot] = OrderedDict()
        # Version that a proxy holds → what it gets.
        self._updates: dict[int, bytes] = {}
        #: Version of the newest table; 0 before the first.
        self.version = 0

    def add(self, table: Snapshot) -> None:
        """Publish a table."""
        self._tables[table.version] = table
        self._updates.clear()
        self.version = table.version
        while len(self._tables) > self._kept:
            self._tables.popitem(last=False)

    def update_for(self, held: int) -> bytes | None:
        """Return what makes the table of a proxy the newest one, for :func:`apply_update`.

        Args:
            held: Version of the proxy's table; 0 if it has none, or could not take a delta.

        Returns:
            A delta, or the whole table if the version is not one of those that are kept; None if the proxy has it.
        """
        if held == self.version or not self.version:
            return None
        if held not in self._tables:
            held = 0
        update = self._updates.get(held)
        if update is None:
            newest = self._tables[self.version]
            update = pickle.dumps(difference(self._tables[held], newest) if held else newest)
            self._updates[held] = update
        return update


def apply_update(update: bytes, table: Snapshot | None) -> Snapshot:
    """Return the table that an update gives.

    Args:
        update: From :meth:`Publication.update_for`; only the controller's, since unpickling can run code.
        table: The table that the proxy holds.

    Raises:
        DeltaRefused: The update is a delta of another table.
    """
    found: Snapshot | TableDelta = pickle.loads(update)
    return apply(found, table) if isinstance(found, TableDelta) else found


class Acknowledgements:
    """Callers that wait until every proxy has acknowledged a version.

    Args:
        is_acknowledged: Returns whether every proxy has acknowledged a version, and so each lower one.
    """

    def __init__(self, is_acknowledged: Callable[[int], bool]) -> None:
        self._is_acknowledged = is_acknowledged
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    def add(self, version: int, future: asyncio.Future[None]) -> None:
        """Let a future have a result when every proxy has acknowledged a version."""
        heapq.heappush(self._waiting, (version, next(self._numbers), future))
        self.settle()

    def settle(self) -> None:
        """Look again: a proxy has reported or is gone. Asks only for the lowest version that someone waits for."""
        while self._waiting and (self._waiting[0][2].done() or self._is_acknowledged(self._waiting[0][0])):
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)

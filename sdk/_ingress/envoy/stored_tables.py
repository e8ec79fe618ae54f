"""The routing table of a proxy on disk, for the next proxy actor of its node.

The file has the whole table, and after it the differences of later ones, so that a change writes little. It is written
again when the differences are as large as the table.
"""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sdk._ingress.table_delta import TableDelta, apply, difference

if TYPE_CHECKING:
    from sdk._xds.snapshot import Snapshot

logger = logging.getLogger("sdk.ingress")

_TABLE_FILE = "table.pickle"
# First line of the table file. A pickle names classes by module: increase the number whenever a class of the tables is
# moved or renamed, or its fields change. Number 1 had no such line.
_TABLE_FORMAT = b"sdk-routing-table 6"
_LENGTH_BYTES = 8


class StoredTables(NamedTuple):
    """The routing table of a proxy, in two versions.

    Attributes:
        in_force: The table that Envoy acknowledged, without the applications that it rejected.
        published: The table that the controller published.
    """

    in_force: Snapshot
    published: Snapshot


# The differences of both tables; None if they are the same one.
_StoredDelta = tuple[TableDelta | None, TableDelta]


class TableStore:
    """Stores the tables that Envoy acknowledges, one after another.

    Args:
        folder: The folder of the proxy; only this user can write to it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _TABLE_FILE
        self._last: StoredTables | None = None
        self._whole_bytes = self._delta_bytes = 0

    def store(self, tables: StoredTables) -> None:
        """Store the routing table, for :func:`load_tables`."""
        last, self._last = self._last, None  # unless this succeeds
        if last is not None and self._delta_bytes < self._whole_bytes and self._path.exists():
            published = difference(last.published, tables.published)
            is_one = tables.in_force == tables.published
            record = _record((None if is_one else difference(last.in_force, tables.in_force), published))
            with self._path.open("ab") as file:
                file.write(record)
            self._delta_bytes += len(record)
        else:
            record = _record(tables)
            new = self._path.with_suffix(".new")
            new.write_bytes(_TABLE_FORMAT + b"\n" + record)
            new.replace(self._path)
            self._whole_bytes, self._delta_bytes = len(record), 0
        self._last = tables


def load_tables(folder: Path) -> StoredTables | None:
    """Return the routing table that Envoy acknowledged last; None if none is stored, or if its format is another one.

    Unpickling is safe: only this user can write to the folder.

    Args:
        folder: The folder of the proxy.
    """
    try:
        stored_format, _, data = (folder / _TABLE_FILE).read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if stored_format != _TABLE_FORMAT:
        logger.warning("ignoring the stored routing table: it was written by another version of the SDK")
        return None
    tables: StoredTables | None = None
    # The last record is cut if the actor was killed while it wrote: it had not reported that table yet.
    while data and (end := _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")) <= len(data):
        record: StoredTables | _StoredDelta = pickle.loads(data[_LENGTH_BYTES:end])
        if isinstance(record, StoredTables):
            tables = record
        else:
            assert tables is not None, "the first record is a whole table"
            published = apply(record[1], tables.published)
            tables = StoredTables(published if record[0] is None else apply(record[0], tables.in_force), published)
        data = data[end:]
    return tables


def _record(value: StoredTables | _StoredDelta) -> bytes:
    data = pickle.dumps(value)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data

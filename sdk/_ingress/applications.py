"""The applications of a routing table, sorted by name, replaced one at a time. Plain state."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk._xds.snapshot import Application


class Applications:
    """The applications of a routing table. A change shares all other applications with the table before.

    Example:
        >>> from sdk._xds.snapshot import Application
        >>> applications = Applications()
        >>> applications.put("b", Application("b", ())), applications.put("a", Application("a", ()))
        (True, True)
        >>> [application.name for application in applications.table]
        ['a', 'b']
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        #: The applications, sorted by name.
        self.table: tuple[Application, ...] = ()

    def put(self, name: str, application: Application | None) -> bool:
        """Replace the application of a name, or remove it if None is given. Return whether the table has changed."""
        at = bisect_left(self._names, name)
        is_known = at < len(self._names) and self._names[at] == name
        if application == (self.table[at] if is_known else None):
            return False
        new = () if application is None else (application,)
        self._names[at : at + is_known] = [each.name for each in new]
        self.table = (*self.table[:at], *new, *self.table[at + is_known :])
        return True

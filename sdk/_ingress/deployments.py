"""The deployments of the newest routing table, found by name. Plain state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._xds.snapshot import Snapshot, differing_applications

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdk._channel.feed import DeploymentKey
    from sdk._xds.snapshot import Application, Deployment


class Deployments:
    """The deployments of one routing table after another. A new table costs what it changes.

    Attributes:
        by_key: The deployments, those included that only other deployments call.

    Example:
        >>> from sdk._xds.snapshot import Application, Deployment
        >>> deployments = Deployments()
        >>> sorted(deployments.take(Snapshot(1, (Application("app", (Deployment("D", ("t.T",)),)),))))
        [('app', 'D')]
        >>> deployments.take(Snapshot(2, (Application("app", (Deployment("D", ("t.T",)),)),)))
        {}
    """

    def __init__(self) -> None:
        self._table = Snapshot(0)
        self.by_key: dict[DeploymentKey, Deployment] = {}

    def take(self, table: Snapshot) -> dict[DeploymentKey, Deployment | None]:
        """Take the newest table, and return the deployments that differ, each as it was before; None for a new one."""
        before, self._table = self._table, table
        pairs = [
            *differing_applications(before.applications, table.applications),
            *differing_applications(before.inner, table.inner),
        ]
        differing: dict[DeploymentKey, Deployment | None] = {}
        # An application may have a part in both: what it has lost first.
        for old, _new in pairs:
            for key, _ in _named(old):
                differing[key] = self.by_key.pop(key)
        for _old, new in pairs:
            for key, deployment in _named(new):
                self.by_key[key] = deployment
                differing.setdefault(key, None)
        return {key: old for key, old in differing.items() if self.by_key.get(key) != old}


def _named(application: Application | None) -> Iterator[tuple[DeploymentKey, Deployment]]:
    if application is not None:
        for deployment in application.deployments:
            yield (application.name, deployment.name), deployment

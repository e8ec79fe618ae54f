"""Isolate applications that Envoy rejects, so that they don't block the updates of all others.

Envoy accepts or rejects a response as a whole, and its error often does not name the bad resource. So the changed
applications are bisected until the rejected ones are found: one bad application of n takes about 2·log2(n) tries.
Plain state, no IO: the caller provides the function that publishes a routing table.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sdk._xds.ads_server import ResourcesRejected
from sdk._xds.packing import FILTER_TYPE, LISTENER_TYPE
from sdk._xds.resources import InconsistentResources

if TYPE_CHECKING:
    from sdk._xds.snapshot import Application, Snapshot

__all__ = ["IsolatingPublisher", "RejectedApplication"]

# Protobuf messages raise ValueError for text that can't be encoded, such as half of a surrogate pair.
_REJECTIONS = (ResourcesRejected, InconsistentResources, ValueError)
_RETRY_S = 30.0
# Seconds that one search may take: less than the lease of a proxy, which can't report meanwhile.
_SEARCH_S = 4.0


@dataclass(frozen=True, slots=True, order=True)
class RejectedApplication:
    """An application whose newest state is not in force.

    Attributes:
        application: Its name.
        reason: The error, Envoy's own if Envoy rejected it.
    """

    application: str
    reason: str

    def __str__(self) -> str:
        return f"application {self.application!r}: {self.reason}"


class IsolatingPublisher:
    """Publishes routing tables, and isolates the applications that Envoy rejects.

    A rejected application keeps its last accepted state, without the replicas that have left since. If it never had
    one, it is published without endpoints, so that its calls end UNAVAILABLE; if Envoy rejects that too, it is left
    out. A rejected application is tried again when it changes, and every 30 s.

    Args:
        publish: Publishes a routing table and returns when it is in force. Raises the errors of ``AdsServer.publish``
            and ``build_resources``.
        clock: Monotonic seconds.
    """

    def __init__(
        self, publish: Callable[[Snapshot], Awaitable[None]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._retry_at = 0.0
        # The last accepted state of each application. As long as none is rejected, those of the table in force.
        self._accepted: dict[str, Application] = {}
        self._is_whole = False
        self._rejected: dict[str, tuple[Application, str]] = {}
        # Applications that are rejected even without endpoints.
        self._left_out: set[str] = set()
        #: The routing table that is in force; None before the first publish.
        self.in_force: Snapshot | None = None

    @property
    def rejected_applications(self) -> tuple[RejectedApplication, ...]:
        """Applications whose newest state is not in force, sorted by name."""
        return tuple(sorted(RejectedApplication(name, reason) for name, (_, reason) in self._rejected.items()))

    def is_retry_due(self) -> bool:
        """Return whether rejected applications are due for another ``publish`` although nothing has changed."""
        return bool(self._rejected) and self._clock() >= self._retry_at

    async def publish(self, snapshot: Snapshot) -> bool:
        """Publish a routing table, except the applications that Envoy rejects.

        Returns:
            Whether every application was tried. If not, valid ones may be missing: call it again soon. Results so far
            are kept.

        Raises:
            ResourcesRejected: Envoy rejects the listener or a filter, or a table without any change.
            InconsistentResources: The check of the resources rejects a table without any change.
        """
        error: Exception | None = None
        if not self._rejected:
            try:
                await self._publish(snapshot)
            except _REJECTIONS as found:
                error = found
            else:
                self._is_whole, self.in_force = True, snapshot
                return True
        if self._is_whole and self.in_force is not None:
            self._accepted = {app.name: app for app in self.in_force.applications}
            self._is_whole = False
        apps = {app.name: app for app in snapshot.applications}
        self._accepted = {name: app for name, app in self._accepted.items() if name in apps}
        is_retry = self._clock() >= self._retry_at
        unchanged = {
            name: (app, reason)
            for name, (app, reason) in self._rejected.items()
            if name in apps and apps[name] == app and not is_retry
        }
        self._left_out &= unchanged.keys()
        fresh = apps.keys() - unchanged.keys()
        rejected: dict[str, str] = {}
        is_complete = True
        try:
            if error is not None:
                raise error
            await self._try(snapshot, fresh)
        except _REJECTIONS as found:
            if isinstance(found, ResourcesRejected) and found.type_url in (FILTER_TYPE, LISTENER_TYPE):
                raise
            rejected, is_complete = await self._search(snapshot, sorted(fresh), found)
        if rejected:
            self._retry_at = self._clock() + _RETRY_S
        self._rejected = {**unchanged, **{name: (apps[name], reason) for name, reason in rejected.items()}}
        return is_complete

    async def _search(self, snapshot: Snapshot, fresh: Sequence[str], error: Exception) -> tuple[dict[str, str], bool]:
        """Bisect the changed applications, and put the valid ones in force.

        Returns:
            Rejected application → reason, and whether all applications were tried.
        """
        apps = {app.name: app for app in snapshot.applications}
        changed = [name for name in fresh if self._accepted.get(name) != apps[name]]
        if not changed:
            raise error
        accepted = set(fresh) - set(changed)
        try:
            await self._try(snapshot, accepted)
        except _REJECTIONS:
            self._left_out |= set(changed) - self._accepted.keys()
            await self._try(snapshot, accepted)
        rejected: dict[str, str] = {}
        deadline = self._clock() + _SEARCH_S
        untried: set[str] = set()

        async def search(names: Sequence[str], known: Exception | None) -> bool:
            """Put these in force if possible; return whether all are. ``known`` is the error of them all together."""
            if self._clock() >= deadline:
                untried.update(names)
                return False
            if known is None:
                try:
                    await self._try(snapshot, accepted | set(names))
                except _REJECTIONS as error:
                    known = error
                else:
                    accepted.update(names)
                    return True
            if len(names) == 1:
                rejected[names[0]] = " ".join(str(known).split())
                return False
            middle = len(names) // 2
            is_left_valid = await search(names[:middle], None)
            # If the whole left half is in force, the error belongs to the right half.
            await search(names[middle:], known if is_left_valid else None)
            return False

        await search(changed, error)
        self._left_out &= rejected.keys() | untried
        await self._try(snapshot, accepted)  # the last try may have been rejected
        return rejected, not untried

    async def _try(self, snapshot: Snapshot, fresh: Collection[str]) -> None:
        """Publish the newest state of some applications together with the last accepted state of the others."""
        applications = tuple(
            app if app.name in fresh else self._last_accepted(app)
            for app in snapshot.applications
            if app.name in fresh or app.name not in self._left_out
        )
        combined = replace(snapshot, applications=applications)
        await self._publish(combined)
        self.in_force = combined
        self._accepted.update((app.name, app) for app in applications if app.name in fresh)

    def _last_accepted(self, app: Application) -> Application:
        """Return the state of an application whose newest state is rejected."""
        present = {endpoint.replica_id for deployment in app.deployments for endpoint in deployment.endpoints}
        started = {deployment.name for deployment in app.deployments if deployment.endpoints}
        accepted_app = self._accepted.get(app.name)
        if accepted_app is None:
            accepted_app, present = app, set()
        deployments = (
            replace(
                d,
                endpoints=tuple(endpoint for endpoint in d.endpoints if endpoint.replica_id in present),
                # Its replicas are running but rejected: calls that wait for one would never get it.
                max_waiting=0 if d.name in started else d.max_waiting,
            )
            for d in accepted_app.deployments
        )
        return replace(accepted_app, deployments=tuple(deployments))

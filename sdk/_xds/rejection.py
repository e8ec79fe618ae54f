"""One application that Envoy refuses does not keep the others from being updated.

Envoy takes a response or refuses it as a whole, and often without naming what is wrong. So the applications that have
changed are halved until those that are refused are found: with one bad one among n that takes some 2·log2(n) tries.
Plain state and no IO; it is given what publishes a routing table.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sdk._xds.ads_server import ResourcesRejected
from sdk._xds.packing import LISTENER_TYPE
from sdk._xds.resources import InconsistentResources

if TYPE_CHECKING:
    from sdk._xds.snapshot import Application, Snapshot

__all__ = ["IsolatingPublisher", "RejectedApplication"]

# A ValueError is what a message raises for text that can't be sent at all, such as half of a surrogate pair.
_REJECTIONS = (ResourcesRejected, InconsistentResources, ValueError)
_RETRY_S = 30.0
# Seconds that one search may take: below the lease of a proxy, which can't report meanwhile.
_SEARCH_S = 4.0


@dataclass(frozen=True, slots=True, order=True)
class RejectedApplication:
    """An application whose newest state is not in force.

    Attributes:
        application: Its name.
        reason: Why, in Envoy's words when it was Envoy that refused it.
    """

    application: str
    reason: str

    def __str__(self) -> str:
        return f"application {self.application!r}: {self.reason}"


class IsolatingPublisher:
    """Publishes routing tables, each application on its own account.

    An application that is refused keeps the last state that was taken, less the replicas that have left since. One that
    never had such a state has no endpoints, so that its calls end UNAVAILABLE; where not even that is taken, it is
    left out. It is tried again when it changes, and every half a minute.

    Args:
        publish: Makes a routing table the truth and returns when it is in force; raises what ``AdsServer.publish`` and
            ``build`` raise.
        clock: Monotonic seconds.
    """

    def __init__(
        self, publish: Callable[[Snapshot], Awaitable[None]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._retry_at = 0.0
        # The last state of each application that was taken.
        self._accepted: dict[str, Application] = {}
        self._rejected: dict[str, tuple[Application, str]] = {}
        # Applications of which nothing is taken, not even their name.
        self._left_out: set[str] = set()
        #: What is in force; None before the first time.
        self.in_force: Snapshot | None = None

    @property
    def rejected_applications(self) -> tuple[RejectedApplication, ...]:
        """The applications whose newest state is not in force, sorted by name."""
        return tuple(sorted(RejectedApplication(name, reason) for name, (_, reason) in self._rejected.items()))

    def is_retry_due(self) -> bool:
        """Tell whether what was refused should be tried again, with ``publish``, though nothing has changed."""
        return bool(self._rejected) and self._clock() >= self._retry_at

    async def publish(self, snapshot: Snapshot) -> bool:
        """Put all of a routing table in force but the applications that are refused.

        Returns:
            Whether every application was tried. If not, some good ones may be missing: call it again soon. What was
            found is kept.

        Raises:
            ResourcesRejected: What is refused is the listener, or the table without anything new in it.
            InconsistentResources: The same, found here.
        """
        apps = {app.name: app for app in snapshot.applications}
        self._accepted = {name: app for name, app in self._accepted.items() if name in apps}
        is_retry = self._clock() >= self._retry_at
        held_back = {
            name: (app, reason)
            for name, (app, reason) in self._rejected.items()
            if name in apps and apps[name] == app and not is_retry
        }
        self._left_out &= held_back.keys()
        fresh = apps.keys() - held_back.keys()
        refused: dict[str, str] = {}
        is_complete = True
        try:
            await self._try(snapshot, fresh)
        except _REJECTIONS as error:
            if isinstance(error, ResourcesRejected) and error.type_url == LISTENER_TYPE:
                raise
            refused, is_complete = await self._search(snapshot, sorted(fresh), error)
        if refused:
            self._retry_at = self._clock() + _RETRY_S
        self._rejected = {**held_back, **{name: (apps[name], reason) for name, reason in refused.items()}}
        return is_complete

    async def _search(self, snapshot: Snapshot, fresh: Sequence[str], error: Exception) -> tuple[dict[str, str], bool]:
        """Return why which applications are refused, and whether all were tried; those that are good are in force."""
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
        refused: dict[str, str] = {}
        deadline = self._clock() + _SEARCH_S
        untried: set[str] = set()

        async def search(names: Sequence[str], known: Exception | None) -> bool:
            """Put these in force where possible; tell whether all are. ``known`` is why they are refused together."""
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
                refused[names[0]] = " ".join(str(known).split())
                return False
            middle = len(names) // 2
            is_left_good = await search(names[:middle], None)
            # With everything of the left half in force, it is the right half that the reason belongs to.
            await search(names[middle:], known if is_left_good else None)
            return False

        await search(changed, error)
        self._left_out &= refused.keys() | untried
        await self._try(snapshot, accepted)  # the last try may have been refused
        return refused, not untried

    async def _try(self, snapshot: Snapshot, fresh: Collection[str]) -> None:
        """Publish the newest state of some applications with what the others may keep."""
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
        """Return what an application keeps while its newest state is refused."""
        present = {endpoint.replica_id for deployment in app.deployments for endpoint in deployment.endpoints}
        started = {deployment.name for deployment in app.deployments if deployment.endpoints}
        taken = self._accepted.get(app.name)
        if taken is None:
            taken, present = app, set()
        deployments = (
            replace(
                d,
                endpoints=tuple(endpoint for endpoint in d.endpoints if endpoint.replica_id in present),
                # Its replicas are there, and refused: calls that wait for one would wait in vain.
                max_waiting=0 if d.name in started else d.max_waiting,
            )
            for d in taken.deployments
        )
        return replace(taken, deployments=tuple(deployments))

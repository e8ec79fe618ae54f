"""The routing table as one immutable value, published by the controller and served by every proxy.

A snapshot does not depend on Envoy's API; ``resources.py`` translates it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import is_not
from typing import TYPE_CHECKING, cast

from sdk._xds.endpoints import Endpoint, Endpoints

if TYPE_CHECKING:
    from sdk._xds.endpoints import Part
    from sdk.access import Access

__all__ = ["Application", "Deployment", "Endpoint", "Endpoints", "Snapshot", "differing_applications"]


@dataclass(frozen=True, slots=True, order=True)
class JsonRoute:
    """One route of ``google.api.http``.

    Attributes:
        prefix: The beginning of its paths, before the first variable.
        verb: ``"GET"``; ``"*"`` for every one.
        pattern: The regular expression of its paths.
        method: Path of the method that it calls.
    """

    prefix: str
    verb: str
    pattern: str
    method: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment of an application.

    Attributes:
        name: Its name in Ray Serve.
        services: Full names of the proto services that it serves.
        endpoints: Its ready replicas, as :class:`Endpoints` whatever sequence is given.
        descriptors: Digest of the descriptors of its services, which the controller stores; empty without descriptors.
        idempotent: Paths of the methods whose calls may be retried if a replica is lost, sorted.
        max_waiting: Maximum number of calls that wait at each proxy while it has no replica. If zero, such calls end
            UNAVAILABLE.
        hidden: Full names of the services that it serves, but that the options of the ingress hide from clients.
        scales_to_zero: True if the deployment may be without replicas until there is a call.
        is_exposed: False if only other deployments call it.
        http_routes: Its routes of ``google.api.http``. The first one that a request matches is that of its method.
    """

    name: str
    services: tuple[str, ...]
    endpoints: Sequence[Endpoint] = Endpoints()  # immutable
    descriptors: str = ""
    idempotent: tuple[str, ...] = ()
    max_waiting: int = 0
    hidden: tuple[str, ...] = ()
    scales_to_zero: bool = False
    is_exposed: bool = True
    http_routes: tuple[JsonRoute, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.endpoints, Endpoints):
            object.__setattr__(self, "endpoints", Endpoints(self.endpoints))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The endpoints in parts that other tables may share."""
        return cast("Endpoints", self.endpoints).parts

    @property
    def holds_calls(self) -> bool:
        """True if calls wait at the gate until there is a replica."""
        return self.max_waiting > 0 and not self.endpoints


@dataclass(frozen=True, slots=True)
class Application:
    """One application: the value of the ``application`` metadata, and its deployments."""

    name: str
    deployments: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole routing table at one version.

    Attributes:
        version: Increases with every change. Proxies report the version that their Envoy acknowledged.
        applications: Sorted by name. Names are unique, and so are the names of an application's deployments.
        route_by_service: Route a call without ``application`` metadata to the only application that serves its service.
        listed_services_only: Route only the services that the deployments list. A replica may serve others, which the
            options of the ingress hide from clients.
        request_timeout_s: Seconds that a call may wait for the first replica; None for no limit.
        access: Who may call what; None for everyone everything.
        inner: Deployments that only other deployments call, by application. Envoy does not see them.
    """

    version: int
    applications: tuple[Application, ...] = ()
    route_by_service: bool = False
    listed_services_only: bool = False
    request_timeout_s: float | None = None
    inner: tuple[Application, ...] = ()
    access: Access | None = None


def differing_applications(
    before: tuple[Application, ...], after: tuple[Application, ...]
) -> Iterator[tuple[Application | None, Application | None]]:
    """Yield the applications of two tables that are not the same objects, each before and after; None for none.

    Example:
        >>> one, two, three = (Application(name, ()) for name in ("a", "b", "b"))
        >>> list(differing_applications((one, two), (one, three))) == [(two, three)]
        True
        >>> list(differing_applications((one,), (one, two))) == [(None, two)]
        True
    """
    if before is after:
        return
    # Both are sorted by name, and most of a table is shared: skip that at either end, in C.
    shortest = min(len(before), len(after))
    begin = next((at for at, differs in enumerate(map(is_not, before, after)) if differs), shortest)
    backwards = enumerate(map(is_not, reversed(before), reversed(after)))
    end = min(next((at for at, differs in backwards if differs), shortest), shortest - begin)
    old = {application.name: application for application in before[begin : len(before) - end]}
    for application in after[begin : len(after) - end]:
        known = old.pop(application.name, None)
        if known is not application:
            yield known, application
    for application in old.values():
        yield application, None

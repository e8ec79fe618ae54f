"""The difference of two routing tables: what a proxy gets of a change. Plain values, without IO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from sdk._xds.snapshot import Application, Deployment, Endpoint, Endpoints, Snapshot, differing_applications


class DeltaRefused(ValueError):
    """The delta is not one of this table. The proxy then asks for the whole table."""


@dataclass(frozen=True, slots=True)
class DeploymentDelta:
    """A deployment of a changed application.

    Attributes:
        deployment: Its new state, without endpoints.
        added: Endpoints that it has in addition.
        removed: Endpoints that it has no longer.
    """

    deployment: Deployment
    added: tuple[Endpoint, ...]
    removed: tuple[Endpoint, ...]


#: Name of an application → its deployments in the new order; None if it is gone.
ApplicationDeltas = Mapping[str, tuple[DeploymentDelta, ...] | None]


@dataclass(frozen=True, slots=True)
class TableDelta:
    """The difference of two routing tables.

    Attributes:
        base: Version of the table that it changes.
        version: Version of the table that this gives.
        applications: The changed applications.
        inner: The changed applications of deployments that only other deployments call.
        options: The other fields of the snapshot that have changed, by name.
    """

    base: int
    version: int
    applications: ApplicationDeltas
    inner: ApplicationDeltas
    options: Mapping[str, Any]


_OPTIONS = ("route_by_service", "listed_services_only", "request_timeout_s", "access")


def difference(before: Snapshot, after: Snapshot) -> TableDelta:
    """Return the delta that makes one table the other. Costs little for what both share."""
    return TableDelta(
        before.version,
        after.version,
        dict(_changed(before.applications, after.applications)),
        dict(_changed(before.inner, after.inner)),
        {name: getattr(after, name) for name in _OPTIONS if getattr(after, name) != getattr(before, name)},
    )


def apply(delta: TableDelta, table: Snapshot | None) -> Snapshot:
    """Return the table that a delta gives. It shares what has not changed with the table before.

    Raises:
        DeltaRefused: The table has another version than the delta's base, or other content.
    """
    if table is None or table.version != delta.base:
        held = "no table" if table is None else f"version {table.version}"
        raise DeltaRefused(f"a delta of version {delta.base} does not fit {held}")
    return replace(
        table,
        version=delta.version,
        applications=_apply(delta.applications, table.applications),
        inner=_apply(delta.inner, table.inner),
        **delta.options,
    )


def _changed(
    before: tuple[Application, ...], after: tuple[Application, ...]
) -> Iterator[tuple[str, tuple[DeploymentDelta, ...] | None]]:
    for old, new in differing_applications(before, after):
        if new is None:
            assert old is not None
            yield old.name, None
        elif old != new:
            yield new.name, tuple(_deployments(old, new))


def _deployments(before: Application | None, after: Application) -> Iterator[DeploymentDelta]:
    old = {each.name: _endpoints(each) for each in before.deployments} if before is not None else {}
    for deployment in after.deployments:
        added, removed = old.get(deployment.name, _NONE).differences(_endpoints(deployment))
        yield DeploymentDelta(replace(deployment, endpoints=_NONE), tuple(added), tuple(removed))


def _apply(deltas: ApplicationDeltas, table: tuple[Application, ...]) -> tuple[Application, ...]:
    if not deltas:
        return table
    applications = {application.name: application for application in table}
    for name, deployments in deltas.items():
        known = applications.pop(name, None)
        if deployments is not None:
            applications[name] = _apply_to_application(name, deployments, known)
        elif known is None:
            raise DeltaRefused(f"application {name!r} is not in the table")
    return tuple(sorted(applications.values(), key=lambda application: application.name))


def _apply_to_application(name: str, deltas: tuple[DeploymentDelta, ...], known: Application | None) -> Application:
    old = {each.name: _endpoints(each) for each in known.deployments} if known is not None else {}
    deployments = []
    for delta in deltas:
        try:
            endpoints = old.get(delta.deployment.name, _NONE).change(added=delta.added, removed=delta.removed)
        except ValueError as error:
            raise DeltaRefused(f"application {name!r}: {error}") from error
        deployments.append(replace(delta.deployment, endpoints=endpoints))
    return Application(name, tuple(deployments))


def _endpoints(deployment: Deployment) -> Endpoints:
    return cast("Endpoints", deployment.endpoints)


_NONE = Endpoints()

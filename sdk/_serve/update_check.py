"""Check an application before it is deployed: its classes, and changes that break clients of the running version.

Replicas announce the descriptors of their services, and the ingress keeps them: clients rely on these.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from sdk._contract.class_rules import check_class
from sdk._contract.definition import definition_of
from sdk._protos.breaking.services import compare
from sdk._protos.descriptors import Descriptors, files_of_services
from sdk._serve.deployed_classes import deployed_classes
from sdk._serve.missing_services import explain_missing_services
from sdk.errors import BreakingChangeError, Change, DefinitionError

if TYPE_CHECKING:
    from sdk._xds.snapshot import Deployment, Snapshot
    from sdk.service import Service

logger = logging.getLogger("sdk.serve")


def check_classes(application: Any) -> None:
    """Check the classes of an application again: they may have changed since they were decorated.

    Args:
        application: The result of ``bind``.

    Raises:
        DefinitionError: Some classes do not fit their services; the error lists the problems of all.
    """
    found = {}
    for cls in deployed_classes(application):
        definition = definition_of(cls)
        problems = check_class(cls, partial=definition is not None and definition.is_partial)
        if problems:
            found[cls.__name__] = problems
    if found:
        raise DefinitionError(", ".join(found), [problem for problems in found.values() for problem in problems])


def warn_of_missing_services(name: str, application: Any) -> None:
    """Warn if clients can't call an application at all. Its handles may be used on purpose.

    Args:
        name: The application's name.
        application: The result of ``bind``.
    """
    reason = explain_missing_services(application)
    if reason:
        logger.warning("application %r serves no gRPC call: %s", name, reason)


def check_update(
    name: str,
    application: Any,
    snapshot: Snapshot,
    running: Collection[str],
    fetch: Callable[[str], bytes | None],
    *,
    allow_breaking: bool = False,
) -> None:
    """Reject an update that would break clients of the running version, and warn of changes that they may notice.

    Args:
        name: The application's name.
        application: The result of ``bind``.
        snapshot: The routing table of the ingress.
        running: Names of the application's deployments in Ray Serve; empty if it does not run.
        fetch: Returns the serialized ``FileDescriptorSet`` of a digest, or None.
        allow_breaking: Warn of breaking changes instead of rejecting them.

    Raises:
        BreakingChangeError: The update would break clients; the error lists every breaking change.
    """
    services = _services_of(application)
    if snapshot.route_by_service:
        _warn_of_shared_services(name, services, snapshot)
    deployed = [
        deployment
        for known in snapshot.applications
        if known.name == name
        for deployment in known.deployments
        if deployment.name in running
    ]
    changes = _changes(name, services, deployed, fetch)
    breaking = [change for change in changes if change.severity == "error"]
    if breaking and not allow_breaking:
        raise BreakingChangeError(name, breaking)
    if changes:
        what = "changes that break clients of the running version" if breaking else "changes that clients may notice"
        listed = "".join(f"\n  - {change.severity}: {change}" for change in changes)
        logger.warning("application %r is updated with %s:%s", name, what, listed)


def _services_of(application: Any) -> dict[str, Service]:
    definitions = (definition_of(cls) for cls in deployed_classes(application, is_exposed=True))
    return {service.full_name: service for each in definitions if each is not None for service in each.services}


def _changes(
    name: str,
    services: dict[str, Service],
    deployed: Collection[Deployment],
    fetch: Callable[[str], bytes | None],
) -> list[Change]:
    """Return the changes for clients of each deployment; deployments may come from different versions of a proto."""
    new = Descriptors(files_of_services(services.values()), "the new version")
    changes: dict[Change, None] = {}
    for deployment in deployed:
        data = fetch(deployment.descriptors) if deployment.descriptors else None
        if data is None:
            logger.warning(
                "deployment %r of application %r has not announced its services: the update is not compared with it",
                deployment.name,
                name,
            )
            continue
        old = Descriptors(FileDescriptorSet.FromString(data), f"deployment {deployment.name!r}")
        changes.update(dict.fromkeys(compare(old, new, deployment.services, served=services)))
    return list(changes)


def _warn_of_shared_services(name: str, services: Collection[str], snapshot: Snapshot) -> None:
    for service in services:
        others = [
            known.name
            for known in snapshot.applications
            if known.name != name and any(service in deployment.services for deployment in known.deployments)
        ]
        if others:
            logger.warning(
                "application %r serves %s, and so does %s: calls of it without `application` metadata end with "
                "NOT_FOUND, although route_by_service is on → clients must name the application",
                name,
                service,
                ", ".join(map(repr, others)),
            )

"""What is looked at before an application is deployed: does it break clients of the version that runs now?

Replicas announce the descriptors of their services, and the ingress keeps them: they are what clients rely on.
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
from sdk.errors import BreakingChangeError, Change, DefinitionError

if TYPE_CHECKING:
    from sdk._xds.snapshot import Deployment, Snapshot
    from sdk.service import Service

logger = logging.getLogger("sdk.serve")


def check_classes(application: Any) -> None:
    """Check the classes of an application once more: they may have changed since they were decorated.

    Args:
        application: What ``bind`` returned.

    Raises:
        DefinitionError: Some do not fit their services; the error lists the problems of all.
    """
    found = {cls.__name__: problems for cls in deployed_classes(application) if (problems := check_class(cls))}
    if found:
        raise DefinitionError(", ".join(found), [problem for problems in found.values() for problem in problems])


def check_update(
    name: str,
    application: Any,
    snapshot: Snapshot,
    running: Collection[str],
    fetch: Callable[[str], bytes | None],
    *,
    allow_breaking: bool = False,
) -> None:
    """Refuse an application that would break clients of the version that runs, and warn of what they may notice.

    Args:
        name: The application's name.
        application: What ``bind`` returned.
        snapshot: What the ingress routes.
        running: Names of the deployments that Ray Serve has under the application's name; none when none runs.
        fetch: Returns the serialized ``FileDescriptorSet`` of a digest, or None.
        allow_breaking: Warn instead of refusing.

    Raises:
        BreakingChangeError: It would break clients; the error lists every change that does.
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
        what = "changes that break clients of the version that runs" if breaking else "changes that clients may notice"
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
    """Return what changes for the clients of each deployment; those may have been made from different protos."""
    new = Descriptors(files_of_services(services.values()), "the new version")
    changes: dict[Change, None] = {}
    for deployment in deployed:
        data = fetch(deployment.descriptors) if deployment.descriptors else None
        if data is None:
            logger.warning(
                "deployment %r of application %r has not said what it serves: the update is not compared with it",
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
                "application %r serves %s, and so does %s: calls of it without `application` metadata end NOT_FOUND, "
                "although route_by_service is on → let clients name the application",
                name,
                service,
                ", ".join(map(repr, others)),
            )

"""The deployments of an application that may begin without replicas: nobody else could announce their services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._ingress.builtin.reflection import serialize_descriptors
from sdk._serve.autoscaling import max_waiting
from sdk._serve.cold_start import WAKE_METHOD
from sdk._serve.internals import built_deployments
from sdk._xds.snapshot import Deployment

if TYPE_CHECKING:
    from ray import serve

    from sdk._contract.definition import Definition


def sleepers(application: serve.Application, name: str) -> list[tuple[Deployment, bytes]]:
    """Return the deployments that may scale to zero, for the ingress.

    Args:
        application: What ``bind`` returned.
        name: The application's name.

    Returns:
        Each without endpoints, with the descriptors of its services.
    """
    found = []
    for deployment, cls, config in built_deployments(application, name):
        most = max_waiting(config)
        if not most or not hasattr(cls, WAKE_METHOD):
            continue
        definition: Definition = cls.__grpc_definition__
        services = tuple(service.full_name for service in definition.services)
        digest, descriptors = serialize_descriptors(service.file for service in definition.services)
        known = Deployment(
            deployment, services, descriptors=digest, idempotent=definition.idempotent_paths, max_waiting=most
        )
        found.append((known, descriptors))
    return found

"""Get a replica for the calls that wait for one: of a deployment that is scaled to zero, or whose replica is replaced.

Ray Serve scales up from zero when a deployment handle has a request for the deployment
(https://docs.ray.io/en/latest/serve/autoscaling-guide.html). gRPC calls do not pass through a handle, so the ingress
controller sends one request through a handle and cancels it when no call waits any more. For a deployment whose replica
is coming anyway, that request waits for it as the calls do.
"""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from sdk._ingress.builtin.reflection import serialize_descriptors
from sdk._serve.autoscaling import max_waiting, scales_to_zero
from sdk._serve.deployed_classes import SERVED_SERVICES
from sdk._serve.failures import raised_in
from sdk._serve.internals import application_overview, built_deployments, find_serve_controller
from sdk._web.http_rules import http_routes
from sdk._xds.snapshot import Deployment

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from sdk._contract.definition import Definition

logger = logging.getLogger("sdk.ingress")

#: Name of the replica's method that answers the request; it does nothing.
COLD_START_METHOD = "_sdk_cold_start"
# Seconds between two checks that the deployment can start at all.
_CHECK_INTERVAL_S = 1.0


def deployments_without_replicas(application: serve.Application, name: str) -> list[tuple[Deployment, bytes]]:
    """Return the deployments of an application that may start without replicas.

    No replica announces their services, so the ingress needs them from here.

    Args:
        application: The result of ``bind``.
        name: The application's name.

    Returns:
        Each deployment without endpoints, with the descriptors of its services.
    """
    found = []
    for deployment, cls, config in built_deployments(application, name):
        if not scales_to_zero(config) or not hasattr(cls, COLD_START_METHOD):
            continue
        definition: Definition = cls.__grpc_definition__
        services = tuple(service.full_name for service in definition.services)
        digest, descriptors = serialize_descriptors(definition.services)
        announced = Deployment(
            deployment,
            services,
            descriptors=digest,
            idempotent=definition.idempotent_paths,
            max_waiting=max_waiting(config),
            scales_to_zero=True,
            is_exposed=hasattr(cls, SERVED_SERVICES),
            http_routes=http_routes(definition.services),
        )
        found.append((announced, descriptors))
    return found


async def start_first_replica(application: str, deployment: str) -> str:
    """Start a replica and wait until it answers. Cancel this when no call needs the replica any more.

    The ingress controller receives this function as an argument, so that it does not import Ray Serve. Ray Serve's own
    autoscaler counts the request that waits here, whatever policy the deployment has.

    Args:
        application: Name of the application.
        deployment: Name of the deployment.

    Returns:
        The reason why no replica can start; empty when one answers.
    """
    request: asyncio.Task[None] | None = None
    try:
        while True:
            failure = await asyncio.to_thread(_start_failure, application, deployment)
            if failure:
                return failure
            if request is None:
                request = asyncio.get_running_loop().create_task(_request_replica(application, deployment))
            await asyncio.wait({request}, timeout=_CHECK_INTERVAL_S)
            if request.done():
                if request.exception() is None:
                    return ""
                logger.info("a request for a replica of %s failed, trying again: %r", deployment, request.exception())
                request = None
                await asyncio.sleep(_CHECK_INTERVAL_S)
    finally:
        if request is not None:
            request.cancel()


async def _request_replica(application: str, deployment: str) -> None:
    handle = await asyncio.to_thread(_handle, application, deployment)
    response: Any = handle.options(method_name=COLD_START_METHOD).remote()
    try:
        await response
    except asyncio.CancelledError:
        response.cancel()
        raise


@cache
def _handle(application: str, deployment: str) -> DeploymentHandle[Any]:
    return serve.get_deployment_handle(deployment, application)


def _start_failure(application: str, deployment: str) -> str:
    """Return the reason why a deployment can't start, or an empty text."""
    try:
        overview = application_overview(application)
    except (RayServeException, ray.exceptions.RayError):
        return "" if find_serve_controller() is not None else "Ray Serve does not run"  # "": it is restarting
    if overview is not None and overview.status.value == "DELETING":
        return f"application {application!r} is being deleted"
    found = overview.deployments.get(deployment) if overview is not None else None
    if found is None:
        return f"Ray Serve has no deployment {deployment!r} of application {application!r}"
    if found.status.value == "DEPLOY_FAILED" or found.status_trigger.value == "REPLICA_STARTUP_FAILED":
        return raised_in(found.message)
    return ""

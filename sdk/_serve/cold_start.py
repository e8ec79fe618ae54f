"""Ray Serve starts the first replica of a deployment when a handle has a request for it: how we ask for one."""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from sdk._serve.failures import raised_in

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

logger = logging.getLogger("sdk.ingress")

#: The method of a replica that answers the request; it does nothing.
WAKE_METHOD = "_sdk_wake"
# Seconds between two looks at whether the deployment can start at all.
_LOOK_S = 1.0


async def wake(application: str, deployment: str) -> str:
    """Have a replica started, and wait until one answers. Cancel it when none is needed any more.

    The ingress controller calls it, so that it need not know Ray Serve. The request that waits here is what Ray Serve's
    own autoscaler counts, whatever policy the deployment has.

    Args:
        application: Name of the application.
        deployment: Name of the deployment.

    Returns:
        Why no replica can start; empty when one answers.
    """
    answer: asyncio.Task[None] | None = None
    try:
        while True:
            trouble = await asyncio.to_thread(_trouble, application, deployment)
            if trouble:
                return trouble
            if answer is None:
                answer = asyncio.get_running_loop().create_task(_ask(application, deployment))
            await asyncio.wait({answer}, timeout=_LOOK_S)
            if answer.done():
                if answer.exception() is None:
                    return ""
                logger.info("a request for a replica of %s failed, trying again: %r", deployment, answer.exception())
                answer = None
                await asyncio.sleep(_LOOK_S)
    finally:
        if answer is not None:
            answer.cancel()


async def _ask(application: str, deployment: str) -> None:
    handle = await asyncio.to_thread(_handle, application, deployment)
    response: Any = handle.options(method_name=WAKE_METHOD).remote()
    try:
        await response
    except asyncio.CancelledError:
        response.cancel()
        raise


@cache
def _handle(application: str, deployment: str) -> DeploymentHandle[Any]:
    return serve.get_deployment_handle(deployment, application)


def _trouble(application: str, deployment: str) -> str:
    """Return why a deployment can't start, or an empty text."""
    try:
        overview = serve.status().applications.get(application)
    except (RayServeException, ray.exceptions.RayError):
        return ""  # Ray Serve's controller is being restarted
    found = overview.deployments.get(deployment) if overview is not None else None
    if found is None:
        return f"Ray Serve has no deployment {deployment!r} of application {application!r}"
    if found.status.value == "DEPLOY_FAILED" or found.status_trigger.value == "REPLICA_STARTUP_FAILED":
        return raised_in(found.message)
    return ""

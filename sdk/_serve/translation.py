"""The status of a call whose handler raised an error of Ray or Ray Serve."""

from __future__ import annotations

import grpc
import ray
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

from sdk.errors import RpcError


def translate(error: BaseException) -> BaseException:
    """Return the exception that decides the status of a call: the one of another deployment, without Ray's wrapper.

    Ray Serve's own errors become an :class:`~sdk.errors.RpcError` with the status code that fits
    (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
    """
    cause = error
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, BackPressureError):
        return RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(cause))
    if isinstance(cause, DeploymentUnavailableError):
        # Its own text is only the deployment's name.
        return RpcError(grpc.StatusCode.UNAVAILABLE, f"{cause} is not available: it failed to deploy, or was deleted")
    if isinstance(cause, ray.exceptions.RayActorError):
        return RpcError(grpc.StatusCode.UNAVAILABLE, str(cause))
    if isinstance(cause, RequestCancelledError):
        return RpcError(grpc.StatusCode.CANCELLED, str(cause))
    return cause

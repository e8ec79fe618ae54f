"""Explain why clients can't call an application: none of its deployments serves a gRPC service. Needs no Ray."""

from __future__ import annotations

from typing import Any

from sdk._contract.definition import definition_of
from sdk._contract.implementations import generated_bases
from sdk._serve.deployed_classes import SERVED_SERVICES, bound_deployments

# Base of the class that `serve.ingress` makes; by name, since it is private.
_ASGI = "ASGIAppReplicaWrapper"


def explain_missing_services(application: Any) -> str:
    """Return the reason why an application has no gRPC service, and the remedy; ``""`` if it has one.

    An application whose ingress serves HTTP (``@serve.ingress``, FastAPI) has none on purpose: ``""`` as well.

    Args:
        application: The result of ``bind``.
    """
    deployments = bound_deployments(application)
    classes = {each.name: each.func_or_class for each in deployments if isinstance(each.func_or_class, type)}
    if any(hasattr(cls, SERVED_SERVICES) for cls in classes.values()):
        return ""
    if any(base.__name__ == _ASGI for cls in classes.values() for base in cls.__mro__):
        return ""
    hidden = [name for name, cls in classes.items() if any(definition_of(base) for base in cls.__mro__)]
    if hidden:
        return f"it has no gRPC service: {_listed(hidden)} has `expose=False` → remove that from one deployment"
    undecorated = [name for name, cls in classes.items() if generated_bases(cls)]
    if undecorated:
        remedy = f"put @grpc_deployment above {_listed(undecorated)} in place of @serve.deployment"
        return f"it has no gRPC service: {_listed(undecorated)} is a plain Ray Serve deployment → {remedy}"
    names = _listed([each.name for each in deployments])
    remedy = "derive the class from a generated base, and put @grpc_deployment above it in place of @serve.deployment"
    return f"it has no gRPC service: {names} is a plain Ray Serve deployment → {remedy}"


def _listed(names: list[str]) -> str:
    return " or ".join(names)
